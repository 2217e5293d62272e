// A callback service as a Node developer would write it: Express, plain rows, one transaction for each request.
// Its tables are the plain design's (plain_app.py), with the tasks in them. Settings: DATABASE, PORT, UID_OF_ACCOUNT,
// WEB_CONCURRENCY.

'use strict';

const cluster = require('node:cluster');
const crypto = require('node:crypto');
const express = require('express');

const { DATABASE, PORT, UID_OF_ACCOUNT, WEB_CONCURRENCY } = process.env;
const BODY_LIMIT = '8mb';
const KEEP_ALIVE_MS = 75_000;
const FLAGGED = new Set(['medium', 'high']);

function sha256(text) {
  return crypto.createHash('sha256').update(text).digest('hex');
}

function isAuthentic(seed, content, checksum) {
  const expected = Buffer.from(sha256(UID_OF_ACCOUNT + seed + content));
  const given = Buffer.from(checksum);
  return given.length === expected.length && crypto.timingSafeEqual(given, expected);
}

// What is told of a callback, beside its own row.
function eventsOf(task, slices) {
  const flagged = slices.filter((piece) => FLAGGED.has(piece.RiskLevel));
  return [
    ...flagged.map((slice) => ({ type: 'slice.flagged', data: JSON.stringify({ task: task.id, slice }) })),
    { type: 'task.completed', data: JSON.stringify({ task: task.id, state: 'completed' }) },
  ];
}

function createApp(store) {
  const app = express();
  app.disable('x-powered-by');
  app.post('/callbacks/:token', express.urlencoded({ extended: false, limit: BODY_LIMIT }), async (request, response) => {
    const { checksum, content } = request.body ?? {};
    if (typeof checksum !== 'string' || typeof content !== 'string') {
      return response.status(400).end();
    }
    const task = await store.task(request.params.token);
    if (!task) {
      return response.status(404).end();
    }
    if (!isAuthentic(task.seed, content, checksum)) {
      return response.status(403).end();
    }
    const { Data: data } = JSON.parse(content);
    const slices = data.SliceDetails ?? [];
    await store.accept({
      task,
      digest: sha256(content),
      checksum,
      content,
      platformTaskId: data.TaskId,
      riskLevel: data.RiskLevel,
      slices,
      events: eventsOf(task, slices),
      now: Date.now() / 1000,
    });
    return response.status(200).end();
  });
  return app;
}

const processes = Number(WEB_CONCURRENCY ?? 1);
if (processes > 1 && cluster.isPrimary) {
  for (let number = 0; number < processes; number += 1) {
    cluster.fork();
  }
} else {
  const { open } = require(DATABASE.startsWith('postgresql:') ? './postgres' : './sqlite');
  const server = createApp(open(DATABASE)).listen(Number(PORT), '127.0.0.1');
  server.keepAliveTimeout = KEEP_ALIVE_MS;
}

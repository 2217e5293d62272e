// The tables on a PostgreSQL server: named statements are prepared once a connection, rows of a kind go together.

'use strict';

const { Pool } = require('pg');

const FIND_TASK = { name: 'find-task', text: 'SELECT id, seed FROM tasks WHERE token = $1' };
const INSERT_CALLBACK = {
  name: 'insert-callback',
  text:
    'INSERT INTO callbacks (task_id, digest, checksum, content, received_at) VALUES ($1, $2, $3, $4, $5)' +
    ' ON CONFLICT DO NOTHING',
};
const INSERT_SLICES = {
  name: 'insert-slices',
  text:
    'INSERT INTO slices (task_id, start_time, end_time, start_timestamp, end_timestamp, risk_level, text, url)' +
    ' SELECT $1, * FROM unnest($2::int[], $3::int[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[])' +
    ' RETURNING id',
};
const INSERT_FINDINGS = {
  name: 'insert-findings',
  text:
    'INSERT INTO findings (slice_id, label, confidence, risk_level, description, risk_words)' +
    ' SELECT * FROM unnest($1::int[], $2::text[], $3::float8[], $4::text[], $5::text[], $6::text[])',
};
const UPDATE_TASK = {
  name: 'update-task',
  text:
    "UPDATE tasks SET state = 'completed', platform_task_id = $1, risk_level = $2, slice_count = slice_count + $3," +
    ' updated_at = $4 WHERE id = $5',
};
const INSERT_EVENTS = {
  name: 'insert-events',
  text: 'INSERT INTO events (task_id, type, data) SELECT $1, * FROM unnest($2::text[], $3::text[])',
};

async function insertAll(client, arrival) {
  const { task, slices, events, now } = arrival;
  const run = (statement, values) => client.query({ ...statement, values });
  const callback = [task.id, arrival.digest, arrival.checksum, arrival.content, now];
  if ((await run(INSERT_CALLBACK, callback)).rowCount === 0) {
    return;
  }
  const columns = ['StartTime', 'EndTime', 'StartTimestamp', 'EndTimestamp', 'RiskLevel', 'Text', 'Url'];
  const stored = await run(INSERT_SLICES, [
    task.id,
    ...columns.map((column) => slices.map((piece) => piece[column])),
  ]);
  const findings = slices.flatMap((piece, place) =>
    piece.Result.map((finding) => ({ ...finding, slice: stored.rows[place].id })),
  );
  await run(INSERT_FINDINGS, [
    findings.map((finding) => finding.slice),
    findings.map((finding) => finding.Label),
    findings.map((finding) => finding.Confidence),
    findings.map((finding) => finding.RiskLevel),
    findings.map((finding) => finding.Description),
    findings.map((finding) => finding.RiskWords ?? null),
  ]);
  await run(UPDATE_TASK, [arrival.platformTaskId, arrival.riskLevel, slices.length, now, task.id]);
  await run(INSERT_EVENTS, [task.id, events.map((event) => event.type), events.map((event) => event.data)]);
}

exports.open = (connectionString) => {
  const pool = new Pool({ connectionString });

  async function accept(arrival) {
    const client = await pool.connect();
    try {
      await client.query('BEGIN');
      await insertAll(client, arrival);
      await client.query('COMMIT');
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    } finally {
      client.release();
    }
  }

  return {
    task: async (token) => (await pool.query({ ...FIND_TASK, values: [token] })).rows[0],
    accept,
  };
};

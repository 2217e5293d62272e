// The tables in a SQLite file. Calls are synchronous, so one transaction never meets another.

'use strict';

const Database = require('better-sqlite3');

const BUSY_MS = 60_000;

exports.open = (path) => {
  const database = new Database(path, { timeout: BUSY_MS });
  database.pragma('journal_mode = WAL');
  database.pragma('synchronous = FULL');
  const findTask = database.prepare('SELECT id, seed FROM tasks WHERE token = ?');
  const insertCallback = database.prepare(
    'INSERT INTO callbacks (task_id, digest, checksum, content, received_at) VALUES (?, ?, ?, ?, ?)' +
      ' ON CONFLICT DO NOTHING',
  );
  const insertSlice = database.prepare(
    'INSERT INTO slices (task_id, start_time, end_time, start_timestamp, end_timestamp, risk_level, text, url)' +
      ' VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
  );
  const insertFinding = database.prepare(
    'INSERT INTO findings (slice_id, label, confidence, risk_level, description, risk_words) VALUES (?, ?, ?, ?, ?, ?)',
  );
  const updateTask = database.prepare(
    "UPDATE tasks SET state = 'completed', platform_task_id = ?, risk_level = ?, slice_count = slice_count + ?," +
      ' updated_at = ? WHERE id = ?',
  );
  const insertEvent = database.prepare('INSERT INTO events (type, task_id, data) VALUES (?, ?, ?)');

  const accept = database.transaction((arrival) => {
    const { task, slices, now } = arrival;
    const inserted = insertCallback.run(task.id, arrival.digest, arrival.checksum, arrival.content, now);
    if (inserted.changes === 0) {
      return;
    }
    for (const piece of slices) {
      const { lastInsertRowid } = insertSlice.run(
        task.id,
        piece.StartTime,
        piece.EndTime,
        piece.StartTimestamp,
        piece.EndTimestamp,
        piece.RiskLevel,
        piece.Text,
        piece.Url,
      );
      for (const finding of piece.Result) {
        insertFinding.run(
          lastInsertRowid,
          finding.Label,
          finding.Confidence,
          finding.RiskLevel,
          finding.Description,
          finding.RiskWords ?? null,
        );
      }
    }
    updateTask.run(arrival.platformTaskId, arrival.riskLevel, slices.length, now, task.id);
    for (const event of arrival.events) {
      insertEvent.run(event.type, task.id, event.data);
    }
  });

  return {
    task: (token) => findTask.get(token),
    accept: (arrival) => accept.immediate(arrival),
  };
};

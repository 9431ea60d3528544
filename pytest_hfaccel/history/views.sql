-- The views of the benchmark database. Everything in them is computed from the tables of schema.sql.

-- A measurement per row, under the names of pytest_hfaccel.benchmark.measurement, with the run it comes from.
-- Rows of version 1 do not say which weights ran, and are not in it.
CREATE VIEW measured_rows AS
SELECT
    m.model_name AS model, m.architecture, r.family, r.test_case AS task, r.weights,
    h.device, h.device_name, r.precision AS dtype, r.effective_dtype, r.implementation, r.mode,
    r.batch_size AS batch, r.sequence_length AS length, r.threads,
    r.iterations AS runs, r.warmup_iterations AS warm_up, b.median_ms, r.average_latency_ms AS mean_ms,
    b.min_ms, b.p5_ms, b.p95_ms, b.p99_ms, b.iqr_ms, b.relative_error,
    r.first_token_ms, r.per_token_ms, r.memory_bytes, r.memory_source, r.weight_bytes, r.parameters,
    r.load_seconds AS load_s, r.convert_seconds AS convert_s, r.compile_seconds AS compile_s,
    r.noise_before_ms AS before_ms, r.noise_after_ms AS after_ms, r.noise_iqr_share AS iqr_share,
    r.clock_before_mhz, r.clock_after_mhz, r.throttled, r.metrics AS details,
    h.hardware_type AS device_kind, r.throughput_items_per_second AS samples_per_second,
    r.result_id, t.run_id, t.run_key, t.test_name, t.test_type, t.started_at, t.completed_at, t.success,
    t.git_commit, t.git_branch, t.command_line, t.versions, t.machine
FROM performance_results r
JOIN performance_batch_results b USING (result_id)
JOIN models m ON m.model_id = r.model_id
JOIN hardware_platforms h ON h.hardware_id = r.hardware_id
JOIN test_runs t ON t.run_id = r.run_id
WHERE r.weights IS NOT NULL;

-- The newest result of everything that was measured the same way.
CREATE VIEW latest_performance_metrics AS
SELECT
    r.result_id, r.run_id, r.model_id, r.hardware_id, m.model_name, m.architecture,
    coalesce(nullif(r.family, ''), m.model_family) AS model_family, h.hardware_type, h.device, h.device_name,
    r.test_case, r.mode, r.batch_size, r.sequence_length, r.precision, r.effective_dtype, r.weights, r.threads,
    r.implementation, r.average_latency_ms, b.median_ms, b.p95_ms, r.throughput_items_per_second, r.memory_peak_mb,
    r.iterations, t.started_at, t.git_commit, t.torch_version, t.transformers_version, t.openvino_version,
    t.plugin_version
FROM performance_results r
LEFT JOIN performance_batch_results b USING (result_id)
JOIN models m ON m.model_id = r.model_id
JOIN hardware_platforms h ON h.hardware_id = r.hardware_id
JOIN test_runs t ON t.run_id = r.run_id
QUALIFY row_number() OVER (
    PARTITION BY r.model_id, r.hardware_id, r.test_case, r.mode, r.batch_size, r.sequence_length, r.precision,
        r.weights, r.threads, r.implementation
    ORDER BY t.started_at DESC, r.result_id DESC
) = 1;

-- What the newest run with a verdict says about a model on a device, and how often it was tried.
CREATE VIEW model_hardware_compatibility AS
SELECT
    c.model_id, c.hardware_id, m.model_name, m.architecture, m.model_family, h.hardware_type, h.device, h.device_name,
    c.precision, c.effective_dtype, c.weights, c.implementation, c.is_compatible, c.compatibility_score,
    c.detection_success, c.initialization_success, c.error_type, c.error_message, c.suggested_fix,
    count(*) OVER same AS times_tried, count(*) FILTER (WHERE c.is_compatible) OVER same AS times_compatible,
    c.run_id, t.started_at
FROM hardware_compatibility c
JOIN models m ON m.model_id = c.model_id
JOIN hardware_platforms h ON h.hardware_id = c.hardware_id
JOIN test_runs t ON t.run_id = c.run_id
WINDOW same AS (PARTITION BY c.model_id, c.hardware_id, c.precision, c.weights)
QUALIFY row_number() OVER (
    PARTITION BY c.model_id, c.hardware_id, c.precision, c.weights
    ORDER BY c.is_compatible IS NULL, t.started_at DESC, c.compatibility_id DESC
) = 1;

-- The newest result of every test.
CREATE VIEW integration_test_status AS
SELECT
    i.test_result_id, i.test_module, i.test_class, i.test_name, i.cell, m.model_name, h.hardware_type, h.device, i.precision, i.weights,
    i.status, i.stage, i.error_message, i.execution_time_seconds, i.run_id, t.started_at,
    count(a.assertion_id) AS assertions, count(a.assertion_id) FILTER (WHERE a.passed) AS assertions_passed
FROM (
    SELECT i.* FROM integration_test_results i JOIN test_runs t USING (run_id)
    QUALIFY row_number() OVER (
        PARTITION BY i.test_module, i.test_class, i.test_name, i.cell, i.model_id, i.hardware_id
        ORDER BY t.started_at DESC, i.test_result_id DESC
    ) = 1
) i
JOIN test_runs t ON t.run_id = i.run_id
LEFT JOIN models m ON m.model_id = i.model_id
LEFT JOIN hardware_platforms h ON h.hardware_id = i.hardware_id
LEFT JOIN integration_test_assertions a ON a.test_result_id = i.test_result_id
GROUP BY ALL;

-- Predictions beside what was measured later; those for no named model cannot be held against anything. Of several predictions of one source, the last one before the
-- measurement counts. What was measured with tiny weights or on an emulated device says nothing about the question.
CREATE VIEW prediction_accuracy AS
WITH pairs AS (
    SELECT
        p.*, r.result_id, r.run_id, b.median_ms, r.memory_bytes / 1048576.0 AS measured_mb,
        h.device AS measured_device, h.device_name AS measured_device_name, h.hardware_type,
        coalesce(nullif(p.family, ''), nullif(r.family, ''), m.model_family, '') AS model_family,
        t.completed_at AS measured_at
    FROM predictions p
    JOIN models m ON m.model_name = p.model AND m.architecture = p.architecture
    JOIN performance_results r ON r.model_id = m.model_id
        AND r.batch_size = p.batch_size AND r.sequence_length = p.sequence_length
        AND r.precision = p.precision AND r.mode = p.mode
        AND r.weights <> 'tiny' AND r.implementation = 'real'
        AND (p.threads IS NULL OR p.threads = r.threads)
    JOIN performance_batch_results b ON b.result_id = r.result_id
    JOIN hardware_platforms h ON h.hardware_id = r.hardware_id
        AND p.device IN (h.device, h.hardware_type) AND p.device_name IN ('', h.device_name)
    JOIN test_runs t ON t.run_id = r.run_id AND t.completed_at > p.created_at
    QUALIFY row_number() OVER (PARTITION BY r.result_id, p.source ORDER BY p.created_at DESC, p.prediction_id DESC) = 1
), compared AS (
    SELECT *, 'latency_ms' AS metric, latency_ms AS predicted, latency_low_ms AS low, latency_high_ms AS high,
        median_ms AS measured FROM pairs
    UNION ALL
    SELECT *, 'memory_mb', memory_mb, memory_low_mb, memory_high_mb, measured_mb FROM pairs
)
SELECT
    prediction_id, result_id, run_id, metric, predicted, measured, predicted / measured - 1 AS relative_error, low, high,
    measured BETWEEN low AND high AS inside_interval, source, model, architecture,
    model_family AS family, measured_device AS device, measured_device_name AS device_name,
    hardware_type AS device_kind, precision AS dtype, batch_size AS batch, sequence_length AS length, mode,
    created_at AS predicted_at, measured_at
FROM compared
WHERE predicted IS NOT NULL AND measured > 0;

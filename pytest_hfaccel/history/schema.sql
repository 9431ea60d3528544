-- The tables of the benchmark database, version 2. Times are UTC. Sizes in MB are MiB (2^20 bytes).
-- The first columns of each table are those of version 1 under their old names; what follows was added in version 2.
-- The sequences `<table>_ids` are made before this file runs: they start behind the rows that are already there.

CREATE TABLE schema_version (
    version INTEGER PRIMARY KEY,
    applied_at TIMESTAMP NOT NULL,
    plugin_version VARCHAR NOT NULL
);

CREATE TABLE hardware_platforms (
    hardware_id BIGINT PRIMARY KEY DEFAULT nextval('hardware_platforms_ids'),
    hardware_type VARCHAR NOT NULL,         -- kind of device: cpu, cuda, openvino, ...
    device_name VARCHAR,                    -- the chip
    platform VARCHAR,                       -- operating system
    platform_version VARCHAR,
    driver_version VARCHAR,
    memory_gb DOUBLE,                       -- GiB
    compute_units INTEGER,                  -- cores of a CPU, multiprocessors of a GPU
    metadata JSON,                          -- what the probe said about the device
    device VARCHAR                          -- device id: cpu, cuda:0, openvino:CPU
);

CREATE TABLE models (
    model_id BIGINT PRIMARY KEY DEFAULT nextval('models_ids'),
    model_name VARCHAR NOT NULL,            -- registry name, hub id or directory
    model_family VARCHAR,                   -- family of the classifier
    modality VARCHAR,                       -- what its task takes: text, image, speech, ...
    source VARCHAR,
    version VARCHAR,
    parameters_million DOUBLE,              -- at its real dimensions
    metadata JSON,
    architecture VARCHAR                    -- transformers class
);

CREATE TABLE test_runs (
    run_id BIGINT PRIMARY KEY DEFAULT nextval('test_runs_ids'),
    test_name VARCHAR,
    test_type VARCHAR,
    started_at TIMESTAMP,
    completed_at TIMESTAMP,
    execution_time_seconds DOUBLE,
    success BOOLEAN,
    git_commit VARCHAR,
    git_branch VARCHAR,
    command_line VARCHAR,
    metadata JSON,
    run_key VARCHAR NOT NULL DEFAULT (uuid()::VARCHAR),  -- the same in every database the run is copied to
    torch_version VARCHAR,
    transformers_version VARCHAR,
    openvino_version VARCHAR,
    plugin_version VARCHAR,
    versions JSON,                          -- of all packages that decide a result
    machine JSON                            -- see pytest_hfaccel.hardware.machine
);

CREATE TABLE performance_results (
    result_id BIGINT PRIMARY KEY DEFAULT nextval('performance_results_ids'),
    run_id BIGINT NOT NULL REFERENCES test_runs (run_id),
    model_id BIGINT NOT NULL REFERENCES models (model_id),
    hardware_id BIGINT NOT NULL REFERENCES hardware_platforms (hardware_id),
    test_case VARCHAR,                      -- the task
    batch_size INTEGER,
    precision VARCHAR,                      -- the asked dtype
    total_time_seconds DOUBLE,              -- of all timed runs
    average_latency_ms DOUBLE,              -- the mean; the median is in performance_batch_results
    throughput_items_per_second DOUBLE,     -- at the median latency
    memory_peak_mb DOUBLE,                  -- what the model added to the memory of its device
    iterations INTEGER,                     -- timed runs
    warmup_iterations INTEGER,
    metrics JSON,                           -- facts worth keeping: shapes of the inputs, properties of the runtime
    weights VARCHAR,                        -- pretrained, random or tiny
    effective_dtype VARCHAR,                -- what the runtime reported
    sequence_length INTEGER,                -- tokens per sample; 0 for models without text
    mode VARCHAR,                           -- inference or training
    threads INTEGER,                        -- CPU threads of the runtime
    implementation VARCHAR,                 -- real or emulated
    family VARCHAR,                         -- as it was classified when this was measured; empty when it was not asked
    first_token_ms DOUBLE,
    per_token_ms DOUBLE,
    memory_bytes BIGINT,
    memory_source VARCHAR,                  -- what memory_bytes was read from
    weight_bytes BIGINT,
    parameters BIGINT,                      -- of the weights that ran
    load_seconds DOUBLE,
    convert_seconds DOUBLE,
    compile_seconds DOUBLE,
    noise_before_ms DOUBLE,                 -- a fixed piece of work before the measurement
    noise_after_ms DOUBLE,                  -- the same after it
    noise_iqr_share DOUBLE,
    clock_before_mhz DOUBLE,
    clock_after_mhz DOUBLE,
    throttled BOOLEAN
);

CREATE TABLE performance_batch_results (
    batch_result_id BIGINT PRIMARY KEY DEFAULT nextval('performance_batch_results_ids'),
    result_id BIGINT NOT NULL REFERENCES performance_results (result_id),
    batch_size INTEGER,
    average_latency_ms DOUBLE,              -- how the times of the batches were distributed
    throughput_items_per_second DOUBLE,
    memory_peak_mb DOUBLE,
    median_ms DOUBLE,
    min_ms DOUBLE,
    p5_ms DOUBLE,
    p95_ms DOUBLE,
    p99_ms DOUBLE,
    iqr_ms DOUBLE,
    relative_error DOUBLE                   -- half the median's 95 % confidence interval, as a share of it
);

CREATE TABLE hardware_compatibility (
    compatibility_id BIGINT PRIMARY KEY DEFAULT nextval('hardware_compatibility_ids'),
    run_id BIGINT NOT NULL REFERENCES test_runs (run_id),
    model_id BIGINT NOT NULL REFERENCES models (model_id),
    hardware_id BIGINT NOT NULL REFERENCES hardware_platforms (hardware_id),
    is_compatible BOOLEAN,                  -- NULL: the run does not say (nothing ran, the hub did not answer)
    detection_success BOOLEAN,              -- the device was there
    initialization_success BOOLEAN,         -- the model was loaded, converted and compiled for it
    error_message VARCHAR,
    error_type VARCHAR,                     -- status of the cell
    suggested_fix VARCHAR,
    workaround_available BOOLEAN,
    compatibility_score DOUBLE,             -- share of the checks with a verdict that passed
    metadata JSON,                          -- what the runtime reported: actual devices, effective precision, ...
    cell VARCHAR,
    precision VARCHAR,
    effective_dtype VARCHAR,
    weights VARCHAR,
    implementation VARCHAR
);

CREATE TABLE integration_test_results (
    test_result_id BIGINT PRIMARY KEY DEFAULT nextval('integration_test_results_ids'),
    run_id BIGINT NOT NULL REFERENCES test_runs (run_id),
    test_module VARCHAR,                    -- model class module
    test_class VARCHAR,                     -- architecture
    test_name VARCHAR,                      -- check
    status VARCHAR,
    execution_time_seconds DOUBLE,
    hardware_id BIGINT REFERENCES hardware_platforms (hardware_id),  -- NULL: a check that needs no device
    model_id BIGINT REFERENCES models (model_id),
    error_message VARCHAR,
    error_traceback VARCHAR,
    metadata JSON,                          -- what the check measured
    cell VARCHAR,
    stage VARCHAR,
    precision VARCHAR,
    weights VARCHAR
);

CREATE TABLE integration_test_assertions (
    assertion_id BIGINT PRIMARY KEY DEFAULT nextval('integration_test_assertions_ids'),
    test_result_id BIGINT NOT NULL REFERENCES integration_test_results (test_result_id),
    assertion_name VARCHAR,                 -- a claim about the model, or the check's own verdict
    passed BOOLEAN,
    expected_value VARCHAR,
    actual_value VARCHAR,
    message VARCHAR
);

CREATE TABLE device_calibrations (
    calibration_id BIGINT PRIMARY KEY DEFAULT nextval('device_calibrations_ids'),
    run_id BIGINT REFERENCES test_runs (run_id),
    device VARCHAR NOT NULL,
    device_name VARCHAR NOT NULL,
    dtype VARCHAR NOT NULL,
    threads INTEGER NOT NULL,
    taken_at TIMESTAMP NOT NULL,
    payload JSON NOT NULL
);

CREATE TABLE predictions (
    prediction_id BIGINT PRIMARY KEY DEFAULT nextval('predictions_ids'),
    prediction_key VARCHAR NOT NULL DEFAULT (uuid()::VARCHAR),
    created_at TIMESTAMP NOT NULL,
    git_commit VARCHAR,
    model VARCHAR NOT NULL,                 -- empty: about an architecture, not about a model
    architecture VARCHAR NOT NULL,
    family VARCHAR NOT NULL,
    device VARCHAR NOT NULL,                -- device id, or a kind of device
    device_name VARCHAR NOT NULL,           -- the chip; empty: it was not said
    threads INTEGER,
    batch_size INTEGER NOT NULL,
    sequence_length INTEGER NOT NULL,
    precision VARCHAR NOT NULL,
    mode VARCHAR NOT NULL,
    source VARCHAR NOT NULL,                -- the layer it comes from
    basis VARCHAR NOT NULL,
    measured_rows BIGINT NOT NULL,          -- rows behind it
    latency_ms DOUBLE,
    latency_low_ms DOUBLE,
    latency_high_ms DOUBLE,
    memory_mb DOUBLE,
    memory_low_mb DOUBLE,
    memory_high_mb DOUBLE,
    fits BOOLEAN,
    advice VARCHAR NOT NULL,
    details JSON NOT NULL
);

CREATE TABLE prediction_models (
    prediction_model_id BIGINT PRIMARY KEY DEFAULT nextval('prediction_models_ids'),
    name VARCHAR NOT NULL,
    trained_at TIMESTAMP NOT NULL,
    rows BIGINT NOT NULL,                   -- measured rows it was trained on
    metrics JSON NOT NULL,
    versions JSON NOT NULL,                 -- of the packages that can read the payload
    payload BLOB NOT NULL
);

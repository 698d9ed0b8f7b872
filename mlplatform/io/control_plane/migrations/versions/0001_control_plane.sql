CREATE TABLE audit_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    principal_id TEXT NOT NULL,
    principal TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    request_id TEXT NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE events (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    event_id UUID DEFAULT gen_random_uuid() NOT NULL,
    job_id UUID,
    sequence INTEGER,
    type TEXT NOT NULL,
    data JSONB DEFAULT '{}' NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    PRIMARY KEY (id),
    CONSTRAINT events_of_a_job UNIQUE (job_id, sequence)
);

CREATE TABLE idempotency_keys (
    principal TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BYTEA NOT NULL,
    status INTEGER NOT NULL,
    body JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    PRIMARY KEY (principal, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE TABLE pipelines (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    slug TEXT NOT NULL,
    spec JSONB DEFAULT '{}' NOT NULL,
    version INTEGER DEFAULT 1 NOT NULL,
    created_by TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    deleted_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (id),
    UNIQUE (slug)
);

CREATE INDEX pipelines_in_order ON pipelines (created_at, id);

CREATE TABLE users (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    password_hash TEXT NOT NULL,
    scopes TEXT[] NOT NULL,
    disabled BOOLEAN DEFAULT false NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (name)
);

CREATE TABLE webhooks (
    id UUID NOT NULL,
    url TEXT NOT NULL,
    types TEXT[] NOT NULL,
    secret_number INTEGER DEFAULT 1 NOT NULL,
    both_secrets_until TIMESTAMP WITH TIME ZONE,
    position BIGINT NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    failing_since TIMESTAMP WITH TIME ZONE,
    trouble TEXT,
    next_attempt_at TIMESTAMP WITH TIME ZONE,
    delivered_at TIMESTAMP WITH TIME ZONE,
    paused BOOLEAN DEFAULT false NOT NULL,
    created_by TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    PRIMARY KEY (id)
);

CREATE INDEX webhooks_in_order ON webhooks (created_at, id);

CREATE TABLE workers (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    type TEXT DEFAULT 'subprocess' NOT NULL,
    status TEXT NOT NULL,
    capabilities JSONB DEFAULT '{}' NOT NULL,
    slots INTEGER DEFAULT 1 NOT NULL,
    listens BOOLEAN DEFAULT false NOT NULL,
    timeout_seconds INTEGER DEFAULT 30 NOT NULL,
    host TEXT DEFAULT '' NOT NULL,
    version TEXT DEFAULT '' NOT NULL,
    created_by TEXT DEFAULT '' NOT NULL,
    registered_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    last_heartbeat TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    stopped_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (id)
);

CREATE INDEX workers_alive ON workers (status) WHERE status NOT IN ('Terminated', 'Failed');

CREATE INDEX workers_in_order ON workers (registered_at, id);

CREATE TABLE schedules (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    slug TEXT NOT NULL,
    pipeline_id UUID,
    spec JSONB,
    priority INTEGER DEFAULT 0 NOT NULL,
    cron TEXT,
    timezone TEXT DEFAULT 'UTC' NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE,
    done_at TIMESTAMP WITH TIME ZONE,
    paused BOOLEAN DEFAULT false NOT NULL,
    declared BOOLEAN DEFAULT false NOT NULL,
    created_by TEXT DEFAULT '' NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    deleted_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (id),
    UNIQUE (slug),
    FOREIGN KEY(pipeline_id) REFERENCES pipelines (id)
);

CREATE INDEX schedules_in_order ON schedules (created_at, id);

CREATE TABLE sessions (
    id UUID NOT NULL,
    user_id UUID NOT NULL,
    service TEXT,
    scopes TEXT[] NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE INDEX sessions_by_end ON sessions (expires_at);

CREATE INDEX sessions_of_users ON sessions (user_id);

CREATE TABLE jobs (
    id UUID NOT NULL,
    name TEXT NOT NULL,
    pipeline_id UUID,
    spec JSONB,
    by_dagster BOOLEAN DEFAULT false NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    message TEXT,
    priority INTEGER DEFAULT 0 NOT NULL,
    round INTEGER DEFAULT 1 NOT NULL,
    run_id TEXT,
    asked_at TIMESTAMP WITH TIME ZONE,
    run_ended_at TIMESTAMP WITH TIME ZONE,
    schedule_id UUID,
    scheduled_for TIMESTAMP WITH TIME ZONE,
    traceparent TEXT,
    created_by TEXT DEFAULT '' NOT NULL,
    sequence INTEGER DEFAULT 0 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    scheduled_at TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (id),
    CONSTRAINT jobs_one_for_each_time UNIQUE (schedule_id, scheduled_for),
    FOREIGN KEY(pipeline_id) REFERENCES pipelines (id),
    FOREIGN KEY(schedule_id) REFERENCES schedules (id)
);

CREATE INDEX jobs_by_end ON jobs (finished_at);

CREATE INDEX jobs_by_pipeline ON jobs (pipeline_id, created_at, id);

CREATE INDEX jobs_by_run ON jobs (run_id);

CREATE INDEX jobs_by_status ON jobs (status, created_at, id);

CREATE INDEX jobs_in_order ON jobs (created_at, id);

CREATE INDEX jobs_to_follow ON jobs (id) WHERE run_id IS NOT NULL AND run_ended_at IS NULL;

CREATE INDEX jobs_to_launch ON jobs (priority, created_at) WHERE run_id IS NULL AND status NOT IN ('Success', 'Failed', 'Cancelled');

CREATE TABLE refresh_tokens (
    digest BYTEA NOT NULL,
    session_id UUID NOT NULL,
    used BOOLEAN DEFAULT false NOT NULL,
    PRIMARY KEY (digest),
    FOREIGN KEY(session_id) REFERENCES sessions (id) ON DELETE CASCADE
);

CREATE INDEX refresh_tokens_of_sessions ON refresh_tokens (session_id);

CREATE TABLE executions (
    id UUID NOT NULL,
    job_id UUID NOT NULL,
    stage TEXT NOT NULL,
    position INTEGER DEFAULT 0 NOT NULL,
    attempt INTEGER DEFAULT 1 NOT NULL,
    round INTEGER DEFAULT 1 NOT NULL,
    spec JSONB DEFAULT '{}' NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    message TEXT,
    exit_code INTEGER,
    bootstrap JSONB DEFAULT '{}' NOT NULL,
    worker_id UUID,
    lease UUID,
    queue_entry BIGINT,
    lost_by UUID,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    released_at TIMESTAMP WITH TIME ZONE,
    scheduled_at TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (id),
    CONSTRAINT executions_one_of_each_attempt UNIQUE (job_id, stage, attempt),
    FOREIGN KEY(job_id) REFERENCES jobs (id),
    FOREIGN KEY(worker_id) REFERENCES workers (id)
);

CREATE INDEX executions_in_order ON executions (created_at, id);

CREATE INDEX executions_of_workers ON executions (worker_id) WHERE status IN ('Scheduled', 'Running');

CREATE INDEX executions_waiting ON executions (released_at) WHERE status = 'Pending' AND released_at IS NOT NULL;

CREATE TABLE artefacts (
    execution_id UUID NOT NULL,
    path TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (execution_id, path),
    FOREIGN KEY(execution_id) REFERENCES executions (id) ON DELETE CASCADE
);

CREATE TABLE log_lines (
    execution_id UUID NOT NULL,
    number INTEGER NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    stream TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (execution_id, number),
    FOREIGN KEY(execution_id) REFERENCES executions (id) ON DELETE CASCADE
);
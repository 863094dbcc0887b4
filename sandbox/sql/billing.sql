-- The platform's database `billing`: what each plan entitles to. Of several rows per plan the newest whose
-- effective_date has come is in force.

CREATE TABLE plan_entitlements (
    id             serial PRIMARY KEY,
    plan_name      varchar(100) NOT NULL,
    effective_date timestamp NOT NULL,
    cpu_limit      decimal(4, 2) NOT NULL,
    memory_limit   varchar(10) NOT NULL,
    storage_limit  varchar(10) NOT NULL,
    db_type        varchar(20) NOT NULL DEFAULT 'shared' CHECK (db_type IN ('shared', 'dedicated')),
    description    text,
    created_by     varchar(100) DEFAULT 'system',
    created_at     timestamp DEFAULT now(),
    UNIQUE (plan_name, effective_date)
);

INSERT INTO plan_entitlements (plan_name, effective_date, cpu_limit, memory_limit, storage_limit, db_type)
VALUES
    ('basic-monthly', '2024-01-01', 1.0, '2G', '10G', 'shared'),
    ('standard-monthly', '2024-01-01', 2.0, '4G', '20G', 'shared'),
    ('premium-monthly', '2024-01-01', 4.0, '8G', '50G', 'dedicated');

-- The platform's database `instance`: the servers that hold tenants' databases, and the tenants' instances.
-- Column names, types and checks are those of the hosted platform; the consumer adds nothing to these tables.

CREATE TABLE db_servers (
    id                       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name                     varchar(100) NOT NULL UNIQUE,
    host                     varchar(255) NOT NULL,
    port                     integer DEFAULT 5432,
    server_type              varchar(20) NOT NULL
        CHECK (server_type IN ('platform', 'shared', 'dedicated')),
    max_instances            integer NOT NULL DEFAULT 50,
    current_instances        integer NOT NULL DEFAULT 0 CHECK (current_instances >= 0),
    swarm_service_id         varchar(255),
    swarm_service_name       varchar(255),
    node_placement           varchar(255) DEFAULT 'node.labels.role==database',
    status                   varchar(30) NOT NULL DEFAULT 'provisioning' CHECK (status IN (
        'provisioning', 'initializing', 'active', 'full', 'maintenance', 'error', 'deprovisioning')),
    health_status            varchar(20) DEFAULT 'unknown'
        CHECK (health_status IN ('healthy', 'degraded', 'unhealthy', 'unknown')),
    last_health_check        timestamptz,
    health_check_failures    integer DEFAULT 0 CHECK (health_check_failures >= 0),
    cpu_limit                varchar(10) DEFAULT '2',
    memory_limit             varchar(10) DEFAULT '4G',
    storage_path             varchar(500),
    allocated_storage_gb     integer DEFAULT 0 CHECK (allocated_storage_gb >= 0),
    postgres_version         varchar(10),
    postgres_image           varchar(100),
    admin_user               varchar(50) DEFAULT 'postgres',
    admin_password           varchar(255),
    allocation_strategy      varchar(20) DEFAULT 'auto' CHECK (allocation_strategy IN ('auto', 'manual')),
    priority                 integer DEFAULT 100 CHECK (priority >= 0),
    dedicated_to_customer_id uuid,
    dedicated_to_instance_id uuid,
    provisioned_by           varchar(100),
    provisioned_at           timestamptz DEFAULT now(),
    last_allocated_at        timestamptz,
    created_at               timestamptz DEFAULT now(),
    updated_at               timestamptz DEFAULT now(),
    CONSTRAINT check_capacity CHECK (current_instances <= max_instances),
    CONSTRAINT check_dedicated_fields CHECK (
        CASE server_type
            WHEN 'dedicated' THEN dedicated_to_customer_id IS NOT NULL
            ELSE dedicated_to_customer_id IS NULL AND dedicated_to_instance_id IS NULL
        END)
);

CREATE TABLE instances (
    id                    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    customer_id           uuid NOT NULL,
    subscription_id       uuid,
    name                  varchar(100) NOT NULL,
    description           text,
    odoo_version          varchar(10) DEFAULT '17.0',
    instance_type         varchar(20) DEFAULT 'production',
    status                varchar(20) DEFAULT 'creating' CHECK (status IN (
        'creating', 'starting', 'running', 'stopping', 'stopped', 'restarting', 'updating', 'maintenance',
        'error', 'terminated', 'container_missing', 'paused')),
    billing_status        varchar(30) DEFAULT 'paid',
    provisioning_status   varchar(30) DEFAULT 'completed',
    cpu_limit             decimal(3, 1) DEFAULT 1.0,
    memory_limit          varchar(10) DEFAULT '1G',
    storage_limit         varchar(10) DEFAULT '10G',
    admin_email           varchar(255) NOT NULL,
    admin_password        varchar(255),
    database_name         varchar(50) NOT NULL,
    subdomain             varchar(50),
    demo_data             boolean DEFAULT false,
    service_id            varchar(255),
    service_name          varchar(255),
    internal_port         integer DEFAULT 8069,
    external_port         integer,
    internal_url          varchar(255),
    external_url          varchar(255),
    db_host               varchar(255),
    db_port               integer DEFAULT 5432,
    db_name               varchar(255),
    db_user               varchar(255),
    db_type               varchar(20) DEFAULT 'shared' CHECK (db_type IN ('shared', 'dedicated')),
    db_server_id          uuid REFERENCES db_servers ON DELETE SET NULL,
    plan_tier             varchar(30),
    requires_dedicated_db boolean DEFAULT false,
    custom_addons         jsonb DEFAULT '[]',
    disabled_modules      jsonb DEFAULT '[]',
    environment_vars      jsonb DEFAULT '{}',
    last_health_check     timestamptz,
    error_message         text,
    metadata              jsonb DEFAULT '{}',
    created_at            timestamptz DEFAULT now(),
    updated_at            timestamptz DEFAULT now(),
    started_at            timestamptz
);

CREATE INDEX ON instances (customer_id);
CREATE INDEX ON instances (status);
CREATE INDEX ON instances (db_server_id) WHERE db_server_id IS NOT NULL;

CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END
$$;

CREATE TRIGGER touch_updated_at BEFORE UPDATE ON db_servers
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();

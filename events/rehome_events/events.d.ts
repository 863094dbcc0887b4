// Generated: python -m rehome_events typescript --write
//
// Every event of the contract, envelope and data. What a field may hold beyond its type (formats, limits) is in the
// JSON Schemas. Ignore types, versions and fields that you do not know: more of them come without a new version.

/**
 * What a plan grants. Decimals are read as numbers and as text (`"4.0"`), since libraries differ in how they
 * write them.
 */
export interface Entitlements {
  /** CPU, in cores; a number, or a decimal number as text. */
  cpu_limit?: number | string | null;
  /** Memory, a number and a unit (K, M, G or T, powers of 1024). */
  memory_limit?: string | null;
  /** Storage, a number and a unit (K, M, G or T, powers of 1024). */
  storage_limit?: string | null;
  /** Kind of database that the plan grants. */
  db_type?: "shared" | "dedicated" | null;
}

/** A customer's paid upgrade took effect: the instance is to get what the new plan grants. */
export interface PlanUpgraded {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The customer who owns the instance. */
  customer_id: string;
  /** The subscription that was upgraded. */
  subscription_id: string;
  /** Name of the plan until now. */
  from_plan: string;
  /** Name of the plan from now on. */
  to_plan: string;
  /** Tier of the new plan; decides which dedicated server is made. */
  plan_tier: string;
  /** What the new plan grants; when missing, it is looked up by the plan's name. */
  entitlements?: Entitlements | null;
  /**
   * The instance is not stopped before this moment, nor outside of the platform's maintenance window; limits
   * that need no move are applied at once.
   */
  not_before?: string | null;
  /**
   * Among the moves that wait for the same place, those of higher priority go first; as in JMS and AMQP 1.0,
   * 4 is normal, and what a missing one counts as. A level counts as much as half a day of waiting.
   */
  priority?: number | null;
}

/** A customer's paid upgrade took effect: the instance is to get what the new plan grants. */
export interface PlanUpgradedV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: string;
  /** Type of the event, which is also the routing key. */
  type: "plan.upgraded";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype?: string;
  /** Type and version of the event's schema. */
  dataschema?: string | null;
  /** The migration that the event belongs to. */
  migrationid?: string | null;
  /** Number of the migration's attempt, from 1. */
  attempt?: number | null;
  /** Id of the event that caused this one. */
  causationid?: string | null;
  /** W3C trace context. */
  traceparent?: string | null;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string | null;
  /** What happened. */
  data: PlanUpgraded;
}

/** The plan kept its kind of database: CPU, memory and storage are applied, nothing was moved. */
export interface InstanceResized {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The customer who owns the instance. */
  customer_id: string;
  /** Name of the plan whose limits are applied. */
  to_plan: string;
  /** Tier of that plan. */
  plan_tier: string;
  /** The limits now in force. */
  limits: Limits;
  /** The limits until now, where they are known. */
  before?: Limits;
  /** Whether the instance was restarted for it. */
  restarted: boolean;
  /** What could not be applied, and why. */
  warnings?: Array<string>;
}

/** What an instance may use. A missing limit is not set by the plan. */
export interface Limits {
  /** CPU, in cores. */
  cpu_limit?: number;
  /** Memory, a number and a unit (K, M, G or T, powers of 1024). */
  memory_limit?: string;
  /** Storage, a number and a unit (K, M, G or T, powers of 1024). */
  storage_limit?: string;
}

/** The plan kept its kind of database: CPU, memory and storage are applied, nothing was moved. */
export interface InstanceResizedV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "instance.resized";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:instance.resized:v1";
  /** The migration that the event belongs to. */
  migrationid?: string;
  /** Number of the migration's attempt, from 1. */
  attempt?: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: InstanceResized;
}

/** A migration was opened; nothing was touched yet. */
export interface MigrationRequested {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The customer who owns the instance. */
  customer_id: string;
  /** Name of the plan until now. */
  from_plan: string;
  /** Name of the plan from now on. */
  to_plan: string;
  /** Tier of the new plan. */
  plan_tier: string;
  /** The server that holds the database now. */
  source: ServerRef;
  /** Kind of server that the database moves to. */
  target_kind: "dedicated";
  /** cold: copied while the instance is down. warm: while it serves, caught up at the end. */
  strategy: "cold" | "warm";
  /** Name of the database, the same on both servers. */
  database: string;
  /** Size of the database, in bytes. */
  database_bytes: number;
  /** What the instance may use once it has moved. */
  limits: Limits;
}

/** A PostgreSQL server: where it is, never how to log in. */
export interface ServerRef {
  /** The server's id in db_servers. */
  id: string;
  /** The server's unique name. */
  name: string;
  /** Name under which the server is reached inside the platform's network. */
  host: string;
  /** TCP port. */
  port: number;
  /** A shared pool, or a server of one tenant. */
  kind: "shared" | "dedicated";
  /** PostgreSQL version as the server reports it. */
  postgres_version?: string;
}

/** A migration was opened; nothing was touched yet. */
export interface MigrationRequestedV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.requested";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.requested:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationRequested;
}

/** Every check that needs no downtime passed, and the dedicated server is healthy. */
export interface MigrationPrepared {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The server that holds the database now. */
  source: ServerRef;
  /** The dedicated server that it moves to. */
  target: ServerRef;
  /** True when the dedicated server was made for this migration, false when it was there. */
  provisioned_now: boolean;
  /** Names of the checks that passed, in the order in which they ran. */
  checks: Array<string>;
  /** How the rehearsal of the copy went, where there was one. */
  rehearsal?: Rehearsal;
  /**
   * How the data will be copied. cold: after the stop. warm: a copy follows its source until then; if that
   * has to be given up, the data is copied cold after all, and `migration.completed` says so.
   */
  strategy?: "cold" | "warm";
  /** Why it is copied that way. */
  strategy_reason?: string;
  /** What was noticed and does not stop the move. */
  warnings?: Array<string>;
}

/** A move of the data that was tried while the instance served, and how long it took: the forecast. */
export interface Rehearsal {
  /** full: all of it. definitions: everything but the rows. */
  mode: "full" | "definitions";
  /** Size of the database, in bytes. */
  database_bytes: number;
  /** Seconds that the dump took. */
  dump_seconds: number;
  /** Seconds that the restore took; meanwhile the source was read for the comparison. */
  restore_seconds: number;
  /** Seconds that reading the copy took. */
  compare_seconds: number;
}

/** Every check that needs no downtime passed, and the dedicated server is healthy. */
export interface MigrationPreparedV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.prepared";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.prepared:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationPrepared;
}

/** The instance is going away and its source database is fenced. Downtime has started. */
export interface MigrationStopped {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** Replicas that ran before the stop; a rollback brings them back. */
  replicas: number;
  /** When the instance was about to be stopped; UTC. */
  stopped_at: string;
  /** When the source stopped accepting connections of the tenant; UTC. */
  fenced_at: string;
  /** Connections that were still open and were ended. */
  connections_ended: number;
}

/** The instance is going away and its source database is fenced. Downtime has started. */
export interface MigrationStoppedV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.stopped";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.stopped:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationStopped;
}

/** A complete backup is on the shared storage. */
export interface MigrationBackedUp {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /**
   * fenced_source: the data as it is moved. before_stop, in a warm move: the data as it was when the copy
   * began to follow; a backup of the fenced source is made when the instance serves again, before
   * `migration.completed`, and replaces this one.
   */
  content?: "fenced_source" | "before_stop";
  /** Name of the backup, unique. */
  backup_id: string;
  /** Directory of the backup on the shared storage. */
  place: string;
  /** Format of the backup: pg_dump's directory format. */
  format: "directory";
  /** Size of all files of the backup, in bytes. */
  bytes: number;
  /** Number of files of the backup. */
  files: number;
  /** SHA-256 of the manifest that lists every file with its size and checksum; hexadecimal. */
  manifest_sha256: string;
  /** When the backup started; UTC. */
  started_at: string;
  /** When the backup was complete and checked; UTC. */
  ended_at: string;
}

/** A complete backup is on the shared storage. */
export interface MigrationBackedUpV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.backed_up";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.backed_up:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationBackedUp;
}

/**
 * The dedicated server has the tenant's role and an empty database under a scratch name. The role may not log
 * in yet: an instance that someone else restarts finds nothing to connect to.
 */
export interface MigrationProvisioned {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The dedicated server. */
  target: ServerRef;
  /** Name of the empty database until its data is verified. */
  scratch_database: string;
  /** The tenant's role, which owns the database. */
  role: string;
  /** Encoding, the source's. */
  encoding: string;
  /** LC_COLLATE, the source's. */
  collation: string;
  /** LC_CTYPE, the source's. */
  ctype: string;
}

/** The dedicated server has the tenant's role and an empty database under a scratch name. */
export interface MigrationProvisionedV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.provisioned";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.provisioned:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationProvisioned;
}

/** odoo.conf and the service environment point to the dedicated server. */
export interface MigrationConfRewritten {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The odoo.conf that was rewritten. */
  path: string;
  /** Backup of the old odoo.conf, kept until the migration has ended. */
  backup_path: string;
  /** Names of the settings that changed; never their values. */
  changed: Array<string>;
}

/** odoo.conf and the service environment point to the dedicated server. */
export interface MigrationConfRewrittenV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.conf_rewritten";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.conf_rewritten:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationConfRewritten;
}

/** The data is on the dedicated server, and verified against the fenced source. */
export interface MigrationRestored {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The dedicated server. */
  target: ServerRef;
  /** Name of the database, the source's. */
  database: string;
  /** Size of the database on the dedicated server, in bytes. */
  database_bytes: number;
  /** What was compared with the source, and found equal. */
  verified: Verified;
}

/** What was compared between the source and the new database, and found equal. */
export interface Verified {
  /** Tables compared. */
  tables: number;
  /** Rows, counted exactly on both sides. */
  rows: number;
  /** Sequences compared. */
  sequences: number;
  /** Indexes compared. */
  indexes: number;
  /** Constraints compared. */
  constraints: number;
  /** Extensions compared. */
  extensions: number;
  /**
   * SHA-256 over what was compared of all tables, equal on both sides: contents, but only the number of rows
   * where nothing was written since a warm copy began; hexadecimal.
   */
  digest: string;
}

/** The data is on the dedicated server, and verified against the fenced source. */
export interface MigrationRestoredV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.restored";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.restored:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationRestored;
}

/** The instance answers over HTTP on its new database: the point of no return is passed. */
export interface MigrationStarted {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The dedicated server. */
  target: ServerRef;
  /** Address that answered; without credentials. */
  url: string;
  /** When the instance answered for the first time; downtime ends here; UTC. */
  healthy_at: string;
  /** The limits that the instance was started with. */
  limits: Limits;
}

/** The instance answers over HTTP on its new database: the point of no return is passed. */
export interface MigrationStartedV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.started";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.started:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationStarted;
}

/** The migration is over and succeeded: a summary for other services. */
export interface MigrationCompleted {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The customer who owns the instance. */
  customer_id: string;
  /** Tier of the plan now in force. */
  plan_tier: string;
  /** The server that held the database. */
  source: ServerRef;
  /** The server that holds it now. */
  target: ServerRef;
  /** How the data was copied. */
  strategy: "cold" | "warm";
  /** From the stop to the first healthy answer, in seconds. */
  downtime_seconds: number;
  /** Time spent per step, in seconds. */
  seconds: Record<string, number>;
  /** Size of the database, in bytes. */
  database_bytes: number;
  /** Size of the backup, in bytes. */
  backup_bytes: number;
  /**
   * SHA-256 over what was compared of all tables, equal on both sides, as in migration.restored; hexadecimal.
   */
  verification_digest: string;
  /**
   * What was measured before the stop: how long a cold copy was expected to take, beside back_up and restore
   * in `seconds`. Null: nothing was rehearsed.
   */
  rehearsal?: Rehearsal;
  /** Until then the fenced source database is kept; UTC. */
  source_retained_until: string;
}

/** The migration is over and succeeded: a summary for other services. */
export interface MigrationCompletedV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.completed";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.completed:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationCompleted;
}

/** The upgrade was refused before anything was touched. */
export interface MigrationRejected {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** Name of the plan that was asked for. */
  to_plan: string;
  /** Why, as a short code: unknown_instance, terminated, never_provisioned and the like. */
  reason: string;
  /** Why, for people. */
  message: string;
}

/** The upgrade was refused before anything was touched. */
export interface MigrationRejectedV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.rejected";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.rejected:v1";
  /** The migration that the event belongs to. */
  migrationid?: string;
  /** Number of the migration's attempt, from 1. */
  attempt?: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationRejected;
}

/** A step failed for good, or used up its tries. */
export interface MigrationFailed {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The step that failed. */
  step: string;
  /** Class of the error. */
  error: string;
  /** What happened, for people; secrets are masked. */
  message: string;
  /** How often the step was tried. */
  tries: number;
  /** roll_back: it is undone now. operator: past the point of no return, a person must look. */
  next: "roll_back" | "operator";
}

/** A step failed for good, or used up its tries. */
export interface MigrationFailedV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.failed";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.failed:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationFailed;
}

/** The instance runs on the shared pool again, its data untouched. */
export interface MigrationRolledBack {
  /** The hosted Odoo instance that the event is about. */
  instance_id: string;
  /** The step that failed. */
  failed_step: string;
  /** Why, for people; secrets are masked. */
  reason: string;
  /** The server that holds the database, as before. */
  source: ServerRef;
  /** From the stop to the first healthy answer, in seconds; missing when never stopped. */
  downtime_seconds?: number;
  /** Steps that were undone, in the order of undoing. */
  undone: Array<string>;
  /** What is left over and needs a person, with its name. */
  leftovers?: Array<string>;
}

/** The instance runs on the shared pool again, its data untouched. */
export interface MigrationRolledBackV1 {
  /** Version of CloudEvents. */
  specversion: "1.0";
  /** Id of the event; a repeated publish has the same id. */
  id: string;
  /** Who publishes it. */
  source: "/migrations";
  /** Type of the event, which is also the routing key. */
  type: "migration.rolled_back";
  /** Id of the instance, that of the data. */
  subject: string;
  /** When it happened; UTC. */
  time: string;
  /** Media type of the data. */
  datacontenttype: "application/json";
  /** Type and version of the event's schema. */
  dataschema: "urn:rehome:events:migration.rolled_back:v1";
  /** The migration that the event belongs to. */
  migrationid: string;
  /** Number of the migration's attempt, from 1. */
  attempt: number;
  /** Id of the event that caused this one. */
  causationid?: string;
  /** W3C trace context. */
  traceparent?: string;
  /**
   * Id of the event that is replayed; only on the replay itself, which goes to the step that failed and not
   * to subscribers. What a replay leads to has the replay's id as its causationid.
   */
  replayof?: string;
  /** What happened. */
  data: MigrationRolledBack;
}

/** Every event; `type`, and with it `dataschema`, says which. */
export type RehomeEvent =
  | PlanUpgradedV1
  | InstanceResizedV1
  | MigrationRequestedV1
  | MigrationPreparedV1
  | MigrationStoppedV1
  | MigrationBackedUpV1
  | MigrationProvisionedV1
  | MigrationConfRewrittenV1
  | MigrationRestoredV1
  | MigrationStartedV1
  | MigrationCompletedV1
  | MigrationRejectedV1
  | MigrationFailedV1
  | MigrationRolledBackV1;

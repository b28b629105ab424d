CREATE TYPE public.river_job_state AS ENUM (
    'available',
    'cancelled',
    'completed',
    'discarded',
    'pending',
    'retryable',
    'running',
    'scheduled'
);

CREATE FUNCTION public.river_job_state_in_bitmask(bitmask bit, state public.river_job_state) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    AS $$
    SELECT CASE state
        WHEN 'available' THEN get_bit(bitmask, 7)
        WHEN 'cancelled' THEN get_bit(bitmask, 6)
        WHEN 'completed' THEN get_bit(bitmask, 5)
        WHEN 'discarded' THEN get_bit(bitmask, 4)
        WHEN 'pending'   THEN get_bit(bitmask, 3)
        WHEN 'retryable' THEN get_bit(bitmask, 2)
        WHEN 'running'   THEN get_bit(bitmask, 1)
        WHEN 'scheduled' THEN get_bit(bitmask, 0)
        ELSE 0
    END = 1;
$$;

CREATE TABLE public.accounts (
    account_id text NOT NULL,
    name text NOT NULL,
    status text NOT NULL,
    revision bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    modified_at timestamp with time zone NOT NULL
);

CREATE TABLE public.api_keys (
    account_id text NOT NULL,
    id text NOT NULL,
    owner_kind text NOT NULL,
    owner_id text NOT NULL,
    display_name text NOT NULL,
    description text NOT NULL,
    hash bytea NOT NULL,
    epoch bigint NOT NULL,
    disabled boolean NOT NULL,
    read_only boolean NOT NULL,
    namespaces text[],
    sources text[],
    created_by text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    modified_at timestamp with time zone,
    retires_at timestamp with time zone,
    successor text NOT NULL,
    revision bigint NOT NULL,
    last_used_at timestamp with time zone,
    CONSTRAINT api_keys_hash_check CHECK ((length(hash) = 32))
);

CREATE TABLE public.certificates (
    account_id text NOT NULL,
    id text NOT NULL,
    service_account_id text NOT NULL,
    issuer text NOT NULL,
    serial text NOT NULL,
    spiffe_id text NOT NULL,
    tbs bytea NOT NULL,
    certificate bytea,
    fingerprint text,
    not_before timestamp with time zone NOT NULL,
    not_after timestamp with time zone NOT NULL,
    first_id text NOT NULL,
    renewed_from text NOT NULL,
    renewable_until timestamp with time zone NOT NULL,
    created_by text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    revocation_reason text NOT NULL,
    revision bigint NOT NULL,
    last_used_at timestamp with time zone,
    replicated boolean NOT NULL
);

CREATE TABLE public.client_cas (
    account_id text NOT NULL,
    namespace_id text NOT NULL,
    fingerprint text NOT NULL,
    namespace text NOT NULL,
    enabled boolean NOT NULL,
    subject text NOT NULL,
    not_after timestamp with time zone NOT NULL
);

CREATE TABLE public.crls (
    account_id text NOT NULL,
    issuer text NOT NULL,
    number bigint NOT NULL,
    revision bigint NOT NULL,
    this_update timestamp with time zone NOT NULL,
    next_update timestamp with time zone NOT NULL,
    der bytea NOT NULL
);

CREATE TABLE public.denials (
    account_id text NOT NULL,
    minute timestamp with time zone NOT NULL,
    caller text NOT NULL,
    type text NOT NULL,
    reason text NOT NULL,
    count bigint NOT NULL
);

CREATE TABLE public.entries (
    account_id text NOT NULL,
    revision bigint NOT NULL,
    epoch bigint NOT NULL,
    operation_id text NOT NULL,
    caller text NOT NULL,
    type text NOT NULL,
    target text NOT NULL,
    request_hash bytea NOT NULL,
    at timestamp with time zone NOT NULL,
    body bytea NOT NULL,
    hash bytea NOT NULL
);

CREATE TABLE public.federation_rules (
    account_id text NOT NULL,
    id text NOT NULL,
    service_account_id text NOT NULL,
    description text NOT NULL,
    issuer text NOT NULL,
    jwks bytea,
    conditions jsonb NOT NULL,
    algorithms text[] NOT NULL,
    max_age_seconds bigint NOT NULL,
    enabled boolean NOT NULL,
    version bigint NOT NULL,
    created_by text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    modified_at timestamp with time zone,
    revision bigint NOT NULL,
    last_used_at timestamp with time zone
);

CREATE TABLE public.feed_acks (
    account_id text NOT NULL,
    instance text NOT NULL,
    revision bigint NOT NULL,
    hash bytea NOT NULL,
    dropped boolean NOT NULL,
    diverged boolean NOT NULL,
    acked_at timestamp with time zone NOT NULL
);

CREATE TABLE public.feed_authorizers (
    instance text NOT NULL,
    principal_id text NOT NULL,
    cells text[] NOT NULL,
    version text NOT NULL,
    registered_at timestamp with time zone NOT NULL,
    previous text[] NOT NULL,
    connected_at timestamp with time zone NOT NULL,
    lease_until timestamp with time zone NOT NULL,
    fresh_at timestamp with time zone NOT NULL,
    max_staleness_ms bigint NOT NULL
);

CREATE TABLE public.filter_maps (
    account_id text NOT NULL,
    namespace_id text NOT NULL,
    filter_id text NOT NULL,
    filter jsonb NOT NULL,
    service_account_id text NOT NULL,
    permission text NOT NULL,
    created_by text NOT NULL,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.grants (
    account_id text NOT NULL,
    subject text NOT NULL,
    scope text NOT NULL,
    target text NOT NULL,
    role text NOT NULL
);

CREATE TABLE public.heads (
    account_id text NOT NULL,
    epoch bigint NOT NULL,
    revision bigint NOT NULL,
    hash bytea NOT NULL,
    digest bytea NOT NULL,
    changed_at timestamp with time zone NOT NULL
);

CREATE TABLE public.issuers (
    account_id text NOT NULL,
    id text NOT NULL,
    parent text NOT NULL,
    tbs bytea,
    chain bytea,
    sealed_key bytea,
    not_before timestamp with time zone NOT NULL,
    not_after timestamp with time zone NOT NULL,
    created_at timestamp with time zone NOT NULL,
    retired_at timestamp with time zone,
    revoked_at timestamp with time zone,
    revision bigint NOT NULL
);

CREATE TABLE public.memberships (
    account_id text NOT NULL,
    group_id text NOT NULL,
    user_id text NOT NULL,
    created_at timestamp with time zone NOT NULL
);

CREATE TABLE public.namespaces (
    account_id text NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    project_id text NOT NULL,
    region text NOT NULL,
    cell text NOT NULL,
    retention_days integer NOT NULL,
    api_key_auth boolean NOT NULL,
    mtls_auth boolean NOT NULL,
    delete_protection boolean NOT NULL,
    spec bytea NOT NULL,
    revision bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    modified_at timestamp with time zone NOT NULL,
    deleted_at timestamp with time zone,
    client_ca bytea DEFAULT '\x'::bytea NOT NULL,
    certificate_filters jsonb DEFAULT '[]'::jsonb NOT NULL
);

CREATE TABLE public.notices (
    account_id text NOT NULL,
    namespace_id text NOT NULL,
    kind text NOT NULL,
    fingerprint text NOT NULL,
    days integer NOT NULL,
    not_after timestamp with time zone NOT NULL,
    told_at timestamp with time zone NOT NULL
);

CREATE TABLE public.objects (
    account_id text NOT NULL,
    kind text NOT NULL,
    id text NOT NULL,
    revision bigint NOT NULL,
    deleted boolean NOT NULL,
    data bytea NOT NULL
);

CREATE TABLE public.outbox (
    id bigint NOT NULL,
    message_id text NOT NULL,
    at timestamp with time zone NOT NULL,
    from_name text NOT NULL,
    from_email text NOT NULL,
    to_name text NOT NULL,
    to_email text NOT NULL,
    subject text NOT NULL,
    text_part text NOT NULL,
    html_part text NOT NULL
);

CREATE SEQUENCE public.outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.outbox_id_seq OWNED BY public.outbox.id;

CREATE TABLE public.page_keys (
    id integer NOT NULL,
    key bytea NOT NULL,
    CONSTRAINT page_keys_id_check CHECK ((id = 1))
);

CREATE TABLE public.person_keys (
    account_id text NOT NULL,
    person text NOT NULL,
    key bytea NOT NULL
);

CREATE TABLE public.projects (
    account_id text NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    is_default boolean NOT NULL,
    revision bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    modified_at timestamp with time zone NOT NULL
);

CREATE TABLE public.revocation_counts (
    account_id text NOT NULL,
    lasting bigint NOT NULL
);

CREATE TABLE public.revocations (
    account_id text NOT NULL,
    id text NOT NULL,
    issuer text NOT NULL,
    serial text NOT NULL,
    fingerprint text NOT NULL,
    certificate_id text NOT NULL,
    reason text NOT NULL,
    created_by text NOT NULL,
    revoked_at timestamp with time zone NOT NULL,
    not_after timestamp with time zone,
    revision bigint NOT NULL
);

CREATE TABLE public.river_job (
    id bigint NOT NULL,
    state public.river_job_state DEFAULT 'available'::public.river_job_state NOT NULL,
    attempt smallint DEFAULT 0 NOT NULL,
    max_attempts smallint DEFAULT 25 NOT NULL,
    attempted_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    finalized_at timestamp with time zone,
    scheduled_at timestamp with time zone DEFAULT now() NOT NULL,
    priority smallint DEFAULT 1 NOT NULL,
    args jsonb NOT NULL,
    attempted_by text[],
    errors jsonb[],
    kind text NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    tags character varying(255)[] DEFAULT '{}'::character varying[] NOT NULL,
    unique_key bytea,
    unique_states bit(8),
    CONSTRAINT finalized_or_finalized_at_null CHECK ((((finalized_at IS NULL) AND (state <> ALL (ARRAY['cancelled'::public.river_job_state, 'completed'::public.river_job_state, 'discarded'::public.river_job_state]))) OR ((finalized_at IS NOT NULL) AND (state = ANY (ARRAY['cancelled'::public.river_job_state, 'completed'::public.river_job_state, 'discarded'::public.river_job_state]))))),
    CONSTRAINT kind_length CHECK (((char_length(kind) > 0) AND (char_length(kind) < 128))),
    CONSTRAINT max_attempts_is_positive CHECK ((max_attempts > 0)),
    CONSTRAINT priority_in_range CHECK (((priority >= 1) AND (priority <= 4))),
    CONSTRAINT queue_length CHECK (((char_length(queue) > 0) AND (char_length(queue) < 128)))
);

CREATE SEQUENCE public.river_job_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.river_job_id_seq OWNED BY public.river_job.id;

CREATE UNLOGGED TABLE public.river_leader (
    elected_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    leader_id text NOT NULL,
    name text DEFAULT 'default'::text NOT NULL,
    CONSTRAINT leader_id_length CHECK (((char_length(leader_id) > 0) AND (char_length(leader_id) < 128))),
    CONSTRAINT name_length CHECK ((name = 'default'::text))
);

CREATE TABLE public.river_migration (
    line text NOT NULL,
    version bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT line_length CHECK (((char_length(line) > 0) AND (char_length(line) < 128))),
    CONSTRAINT version_gte_1 CHECK ((version >= 1))
);

CREATE TABLE public.river_notification (
    id bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    payload text NOT NULL,
    topic text NOT NULL,
    CONSTRAINT topic_length CHECK (((length(topic) > 0) AND (length(topic) < 128)))
);

CREATE SEQUENCE public.river_notification_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.river_notification_id_seq OWNED BY public.river_notification.id;

CREATE TABLE public.river_queue (
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    paused_at timestamp with time zone,
    updated_at timestamp with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL
);

CREATE TABLE public.seen_certificates (
    account_id text NOT NULL,
    namespace_id text NOT NULL,
    fingerprint text NOT NULL,
    chain bytea[] NOT NULL,
    subject text NOT NULL,
    issuer text NOT NULL,
    serial text NOT NULL,
    not_before timestamp with time zone NOT NULL,
    not_after timestamp with time zone NOT NULL,
    managed boolean NOT NULL,
    first_seen_at timestamp with time zone NOT NULL,
    last_seen_at timestamp with time zone NOT NULL,
    refused text NOT NULL,
    allowed_at timestamp with time zone,
    cas text[] NOT NULL,
    filter_id text NOT NULL
);

CREATE TABLE public.service_accounts (
    account_id text NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    status text NOT NULL,
    scope text NOT NULL,
    credential_epoch bigint NOT NULL,
    revision bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    modified_at timestamp with time zone NOT NULL
);

CREATE TABLE public.token_keys (
    id text NOT NULL,
    public_key bytea NOT NULL,
    sealed_key bytea,
    issuer text NOT NULL,
    audiences text[] NOT NULL,
    state text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    activated_at timestamp with time zone,
    retired_at timestamp with time zone,
    revoked_at timestamp with time zone,
    revision bigint NOT NULL,
    CONSTRAINT token_keys_state_check CHECK ((state = ANY (ARRAY['next'::text, 'active'::text, 'retiring'::text, 'revoked'::text])))
);

CREATE TABLE public.user_groups (
    account_id text NOT NULL,
    id text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    email text NOT NULL,
    idp_id text NOT NULL,
    revision bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    modified_at timestamp with time zone NOT NULL
);

CREATE TABLE public.users (
    account_id text NOT NULL,
    id text NOT NULL,
    email text NOT NULL,
    email_key text NOT NULL,
    status text NOT NULL,
    invited_at timestamp with time zone NOT NULL,
    invitation_expires_at timestamp with time zone NOT NULL,
    credential_epoch bigint NOT NULL,
    revision bigint NOT NULL,
    created_at timestamp with time zone NOT NULL,
    modified_at timestamp with time zone NOT NULL
);

ALTER TABLE ONLY public.outbox ALTER COLUMN id SET DEFAULT nextval('public.outbox_id_seq'::regclass);

ALTER TABLE ONLY public.river_job ALTER COLUMN id SET DEFAULT nextval('public.river_job_id_seq'::regclass);

ALTER TABLE ONLY public.river_notification ALTER COLUMN id SET DEFAULT nextval('public.river_notification_id_seq'::regclass);

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.certificates
    ADD CONSTRAINT certificates_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.client_cas
    ADD CONSTRAINT client_cas_pkey PRIMARY KEY (account_id, namespace_id, fingerprint);

ALTER TABLE ONLY public.crls
    ADD CONSTRAINT crls_pkey PRIMARY KEY (account_id, issuer);

ALTER TABLE ONLY public.denials
    ADD CONSTRAINT denials_pkey PRIMARY KEY (account_id, minute, caller, type, reason);

ALTER TABLE ONLY public.entries
    ADD CONSTRAINT entries_operation UNIQUE (account_id, operation_id, caller);

ALTER TABLE ONLY public.entries
    ADD CONSTRAINT entries_pkey PRIMARY KEY (account_id, revision);

ALTER TABLE ONLY public.federation_rules
    ADD CONSTRAINT federation_rules_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.feed_acks
    ADD CONSTRAINT feed_acks_pkey PRIMARY KEY (account_id, instance, revision);

ALTER TABLE ONLY public.feed_authorizers
    ADD CONSTRAINT feed_authorizers_pkey PRIMARY KEY (instance);

ALTER TABLE ONLY public.filter_maps
    ADD CONSTRAINT filter_maps_pkey PRIMARY KEY (account_id, namespace_id, filter_id);

ALTER TABLE ONLY public.grants
    ADD CONSTRAINT grants_pkey PRIMARY KEY (account_id, subject, scope, target);

ALTER TABLE ONLY public.heads
    ADD CONSTRAINT heads_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY public.issuers
    ADD CONSTRAINT issuers_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.memberships
    ADD CONSTRAINT memberships_pkey PRIMARY KEY (account_id, group_id, user_id);

ALTER TABLE ONLY public.namespaces
    ADD CONSTRAINT namespaces_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.notices
    ADD CONSTRAINT notices_pkey PRIMARY KEY (account_id, namespace_id, kind, fingerprint, days);

ALTER TABLE ONLY public.objects
    ADD CONSTRAINT objects_pkey PRIMARY KEY (account_id, kind, id);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_message_id UNIQUE (message_id);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.page_keys
    ADD CONSTRAINT page_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.person_keys
    ADD CONSTRAINT person_keys_pkey PRIMARY KEY (account_id, person);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_name UNIQUE (account_id, name);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.revocation_counts
    ADD CONSTRAINT revocation_counts_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY public.revocations
    ADD CONSTRAINT revocations_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.river_job
    ADD CONSTRAINT river_job_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.river_leader
    ADD CONSTRAINT river_leader_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.river_migration
    ADD CONSTRAINT river_migration_pkey1 PRIMARY KEY (line, version);

ALTER TABLE ONLY public.river_notification
    ADD CONSTRAINT river_notification_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.river_queue
    ADD CONSTRAINT river_queue_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.seen_certificates
    ADD CONSTRAINT seen_certificates_pkey PRIMARY KEY (account_id, namespace_id, fingerprint);

ALTER TABLE ONLY public.service_accounts
    ADD CONSTRAINT service_accounts_name UNIQUE (account_id, name);

ALTER TABLE ONLY public.service_accounts
    ADD CONSTRAINT service_accounts_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.token_keys
    ADD CONSTRAINT token_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.user_groups
    ADD CONSTRAINT user_groups_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_email UNIQUE (account_id, email_key);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (account_id, id);

CREATE INDEX api_keys_ended ON public.api_keys USING btree (LEAST(expires_at, retires_at));

CREATE INDEX api_keys_owner ON public.api_keys USING btree (account_id, owner_id, id);

CREATE UNIQUE INDEX certificates_fingerprint ON public.certificates USING btree (account_id, fingerprint);

CREATE INDEX certificates_first ON public.certificates USING btree (account_id, first_id, renewed_from);

CREATE INDEX certificates_not_after ON public.certificates USING btree (not_after);

CREATE INDEX certificates_owner ON public.certificates USING btree (account_id, service_account_id, id);

CREATE INDEX certificates_owner_end ON public.certificates USING btree (account_id, service_account_id, not_after);

CREATE INDEX certificates_renewable_until ON public.certificates USING btree (renewable_until);

CREATE INDEX certificates_replicated ON public.certificates USING btree (not_after) WHERE replicated;

CREATE UNIQUE INDEX certificates_serial ON public.certificates USING btree (account_id, issuer, serial);

CREATE INDEX client_cas_not_after ON public.client_cas USING btree (not_after) WHERE enabled;

CREATE INDEX crls_next_update ON public.crls USING btree (next_update);

CREATE INDEX federation_rules_owner ON public.federation_rules USING btree (account_id, service_account_id, id);

CREATE INDEX feed_acks_acked_at ON public.feed_acks USING btree (acked_at);

CREATE INDEX feed_authorizers_lease ON public.feed_authorizers USING btree (lease_until);

CREATE INDEX filter_maps_service_account ON public.filter_maps USING btree (account_id, service_account_id);

CREATE INDEX grants_target ON public.grants USING btree (account_id, scope, target);

CREATE INDEX heads_changed_at ON public.heads USING btree (changed_at);

CREATE UNIQUE INDEX issuers_id ON public.issuers USING btree (id);

CREATE INDEX issuers_not_after ON public.issuers USING btree (not_after);

CREATE INDEX issuers_parent ON public.issuers USING btree (parent);

CREATE INDEX memberships_user ON public.memberships USING btree (account_id, user_id);

CREATE INDEX namespaces_cell ON public.namespaces USING btree (cell, account_id) WHERE (deleted_at IS NULL);

CREATE UNIQUE INDEX namespaces_name ON public.namespaces USING btree (account_id, name) WHERE (deleted_at IS NULL);

CREATE INDEX notices_not_after ON public.notices USING btree (not_after);

CREATE INDEX objects_revision ON public.objects USING btree (account_id, revision);

CREATE UNIQUE INDEX projects_default ON public.projects USING btree (account_id) WHERE is_default;

CREATE INDEX revocations_issuer ON public.revocations USING btree (account_id, issuer, revision);

CREATE INDEX revocations_not_after ON public.revocations USING btree (not_after) WHERE (not_after IS NOT NULL);

CREATE INDEX river_job_args_index ON public.river_job USING gin (args);

CREATE INDEX river_job_kind ON public.river_job USING btree (kind);

CREATE INDEX river_job_metadata_index ON public.river_job USING gin (metadata);

CREATE INDEX river_job_prioritized_fetching_index ON public.river_job USING btree (state, queue, priority, scheduled_at, id);

CREATE INDEX river_job_state_and_finalized_at_index ON public.river_job USING btree (state, finalized_at) WHERE (finalized_at IS NOT NULL);

CREATE UNIQUE INDEX river_job_unique_idx ON public.river_job USING btree (unique_key) WHERE ((unique_key IS NOT NULL) AND (unique_states IS NOT NULL) AND public.river_job_state_in_bitmask(unique_states, state));

CREATE INDEX river_notification_created_at_idx ON public.river_notification USING btree (created_at);

CREATE INDEX river_notification_topic_id_idx ON public.river_notification USING btree (topic, id);

CREATE INDEX seen_certificates_last ON public.seen_certificates USING btree (account_id, namespace_id, last_seen_at);

CREATE INDEX seen_certificates_not_after ON public.seen_certificates USING btree (not_after);

CREATE INDEX seen_certificates_old ON public.seen_certificates USING btree (last_seen_at);

CREATE UNIQUE INDEX token_keys_active ON public.token_keys USING btree (state) WHERE (state = 'active'::text);

CREATE UNIQUE INDEX token_keys_next ON public.token_keys USING btree (state) WHERE (state = 'next'::text);

CREATE UNIQUE INDEX user_groups_email ON public.user_groups USING btree (account_id, lower(email)) WHERE (kind = 'google'::text);

CREATE UNIQUE INDEX user_groups_idp_id ON public.user_groups USING btree (account_id, idp_id) WHERE (kind = 'scim'::text);

CREATE INDEX user_groups_list ON public.user_groups USING btree (account_id, name, id);

CREATE UNIQUE INDEX user_groups_name ON public.user_groups USING btree (account_id, name) WHERE (kind = 'cloud'::text);

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
    deleted_at timestamp with time zone
);

CREATE TABLE public.objects (
    account_id text NOT NULL,
    kind text NOT NULL,
    id text NOT NULL,
    revision bigint NOT NULL,
    deleted boolean NOT NULL,
    data bytea NOT NULL
);

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

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY public.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.denials
    ADD CONSTRAINT denials_pkey PRIMARY KEY (account_id, minute, caller, type, reason);

ALTER TABLE ONLY public.entries
    ADD CONSTRAINT entries_operation UNIQUE (account_id, operation_id, caller);

ALTER TABLE ONLY public.entries
    ADD CONSTRAINT entries_pkey PRIMARY KEY (account_id, revision);

ALTER TABLE ONLY public.feed_acks
    ADD CONSTRAINT feed_acks_pkey PRIMARY KEY (account_id, instance, revision);

ALTER TABLE ONLY public.feed_authorizers
    ADD CONSTRAINT feed_authorizers_pkey PRIMARY KEY (instance);

ALTER TABLE ONLY public.grants
    ADD CONSTRAINT grants_pkey PRIMARY KEY (account_id, subject, scope, target);

ALTER TABLE ONLY public.heads
    ADD CONSTRAINT heads_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY public.memberships
    ADD CONSTRAINT memberships_pkey PRIMARY KEY (account_id, group_id, user_id);

ALTER TABLE ONLY public.namespaces
    ADD CONSTRAINT namespaces_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.objects
    ADD CONSTRAINT objects_pkey PRIMARY KEY (account_id, kind, id);

ALTER TABLE ONLY public.page_keys
    ADD CONSTRAINT page_keys_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.person_keys
    ADD CONSTRAINT person_keys_pkey PRIMARY KEY (account_id, person);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_name UNIQUE (account_id, name);

ALTER TABLE ONLY public.projects
    ADD CONSTRAINT projects_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.service_accounts
    ADD CONSTRAINT service_accounts_name UNIQUE (account_id, name);

ALTER TABLE ONLY public.service_accounts
    ADD CONSTRAINT service_accounts_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.user_groups
    ADD CONSTRAINT user_groups_pkey PRIMARY KEY (account_id, id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_email UNIQUE (account_id, email_key);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (account_id, id);

CREATE INDEX api_keys_ended ON public.api_keys USING btree (LEAST(expires_at, retires_at));

CREATE INDEX api_keys_owner ON public.api_keys USING btree (account_id, owner_id, id);

CREATE INDEX feed_acks_acked_at ON public.feed_acks USING btree (acked_at);

CREATE INDEX feed_authorizers_lease ON public.feed_authorizers USING btree (lease_until);

CREATE INDEX grants_target ON public.grants USING btree (account_id, scope, target);

CREATE INDEX heads_changed_at ON public.heads USING btree (changed_at);

CREATE INDEX memberships_user ON public.memberships USING btree (account_id, user_id);

CREATE INDEX namespaces_cell ON public.namespaces USING btree (cell, account_id) WHERE (deleted_at IS NULL);

CREATE UNIQUE INDEX namespaces_name ON public.namespaces USING btree (account_id, name) WHERE (deleted_at IS NULL);

CREATE INDEX objects_revision ON public.objects USING btree (account_id, revision);

CREATE UNIQUE INDEX projects_default ON public.projects USING btree (account_id) WHERE is_default;

CREATE UNIQUE INDEX user_groups_email ON public.user_groups USING btree (account_id, lower(email)) WHERE (kind = 'google'::text);

CREATE UNIQUE INDEX user_groups_idp_id ON public.user_groups USING btree (account_id, idp_id) WHERE (kind = 'scim'::text);

CREATE INDEX user_groups_list ON public.user_groups USING btree (account_id, name, id);

CREATE UNIQUE INDEX user_groups_name ON public.user_groups USING btree (account_id, name) WHERE (kind = 'cloud'::text);

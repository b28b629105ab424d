-- +goose Up

-- Keys that sign tokens: the operator's, like what is in account 00000. Private keys
-- are encrypted under the operator's key, and are kept only while they may sign.
create table token_keys (
    id           text not null primary key, -- kid
    public_key   bytea not null, -- DER of the SubjectPublicKeyInfo
    sealed_key   bytea, -- PKCS #8; null: it signs no more
    issuer       text not null,
    audiences    text[] not null, -- the first is the default
    state        text not null check (state in ('next', 'active', 'retiring', 'revoked')),
    created_at   timestamptz not null,
    activated_at timestamptz,
    retired_at   timestamptz,
    revoked_at   timestamptz,
    revision     bigint not null
);
create unique index token_keys_active on token_keys (state) where state = 'active';
create unique index token_keys_next on token_keys (state) where state = 'next';

-- Rules by which tokens of other issuers are exchanged for ours.
create table federation_rules (
    account_id         text not null,
    id                 text not null,
    service_account_id text not null,
    description        text not null,
    issuer             text not null,
    jwks               bytea, -- null: found by discovery
    conditions         jsonb not null,
    algorithms         text[] not null,
    max_age_seconds    bigint not null, -- 0: until the token expires
    enabled            boolean not null,
    version            bigint not null,
    created_by         text not null, -- principal
    created_at         timestamptz not null,
    modified_at        timestamptz, -- null: never
    revision           bigint not null,
    last_used_at       timestamptz, -- to the minute; written outside the journal
    primary key (account_id, id)
);
create index federation_rules_owner on federation_rules (account_id, service_account_id, id);

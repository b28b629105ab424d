-- +goose Up

-- API keys. Of the token only its SHA-256 is kept. Expired and retired keys
-- keep their rows for some time.
create table api_keys (
    account_id   text not null,
    id           text not null,
    owner_kind   text not null,
    owner_id     text not null,
    display_name text not null,
    description  text not null,
    hash         bytea not null check (length(hash) = 32),
    epoch        bigint not null, -- the owner's credential epoch when the key was made
    disabled     boolean not null,
    read_only    boolean not null,
    namespaces   text[], -- null: all
    sources      text[], -- prefixes; null: from anywhere
    created_by   text not null, -- principal
    created_at   timestamptz not null,
    expires_at   timestamptz not null,
    modified_at  timestamptz, -- null: never
    retires_at   timestamptz, -- null: was not rotated
    successor    text not null, -- key that it was rotated to, '' if none
    revision     bigint not null,
    last_used_at timestamptz, -- to the minute; written outside the journal
    primary key (account_id, id)
);
create index api_keys_owner on api_keys (account_id, owner_id, id);
create index api_keys_ended on api_keys (least(expires_at, retires_at));

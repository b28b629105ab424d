-- +goose Up

-- The key of page tokens: one a deployment, made at first use.
create table page_keys (
    id  int primary key check (id = 1),
    key bytea not null
);

-- revision, everywhere: the account's revision at which the row last changed.

create table accounts (
    account_id  text primary key,
    name        text not null,
    status      text not null,
    revision    bigint not null,
    created_at  timestamptz not null,
    modified_at timestamptz not null
);

create table projects (
    account_id  text not null,
    id          text not null,
    name        text not null,
    is_default  boolean not null,
    revision    bigint not null,
    created_at  timestamptz not null,
    modified_at timestamptz not null,
    primary key (account_id, id),
    constraint projects_name unique (account_id, name)
);
create unique index projects_default on projects (account_id) where is_default;

-- A deleted namespace keeps its row: its id is never used again, its name may be.
create table namespaces (
    account_id        text not null,
    id                text not null,
    name              text not null,
    project_id        text not null,
    region            text not null,
    cell              text not null,
    retention_days    int not null,
    api_key_auth      boolean not null,
    mtls_auth         boolean not null,
    delete_protection boolean not null,
    spec              bytea not null, -- as the client sent it; opaque here
    revision          bigint not null,
    created_at        timestamptz not null,
    modified_at       timestamptz not null,
    deleted_at        timestamptz,
    primary key (account_id, id)
);
create unique index namespaces_name on namespaces (account_id, name) where deleted_at is null;
create index namespaces_cell on namespaces (cell, account_id) where deleted_at is null;

create table users (
    account_id            text not null,
    id                    text not null,
    email                 text not null, -- as given
    email_key             text not null, -- as compared
    status                text not null,
    invited_at            timestamptz not null,
    invitation_expires_at timestamptz not null,
    credential_epoch      bigint not null,
    revision              bigint not null,
    created_at            timestamptz not null,
    modified_at           timestamptz not null,
    primary key (account_id, id),
    constraint users_email unique (account_id, email_key)
);

-- "groups" is a word of SQL.
create table user_groups (
    account_id  text not null,
    id          text not null,
    kind        text not null,
    name        text not null,
    email       text not null, -- of a google group
    idp_id      text not null, -- of a scim group
    revision    bigint not null,
    created_at  timestamptz not null,
    modified_at timestamptz not null,
    primary key (account_id, id)
);
create index user_groups_list on user_groups (account_id, name, id);
create unique index user_groups_name on user_groups (account_id, name) where kind = 'cloud';
create unique index user_groups_email on user_groups (account_id, lower(email)) where kind = 'google';
create unique index user_groups_idp_id on user_groups (account_id, idp_id) where kind = 'scim';

create table memberships (
    account_id text not null,
    group_id   text not null,
    user_id    text not null,
    created_at timestamptz not null,
    primary key (account_id, group_id, user_id)
);
create index memberships_user on memberships (account_id, user_id);

create table service_accounts (
    account_id       text not null,
    id               text not null,
    name             text not null,
    description      text not null,
    status           text not null,
    scope            text not null, -- account, project, namespace, cell
    credential_epoch bigint not null,
    revision         bigint not null,
    created_at       timestamptz not null,
    modified_at      timestamptz not null,
    primary key (account_id, id),
    constraint service_accounts_name unique (account_id, name)
);

create table grants (
    account_id text not null,
    subject    text not null, -- id of a user, service account or group
    scope      text not null,
    target     text not null,
    role       text not null,
    primary key (account_id, subject, scope, target)
);
create index grants_target on grants (account_id, scope, target);

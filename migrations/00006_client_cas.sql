-- +goose Up

-- What a namespace takes beside API keys, as it was sent.
alter table namespaces
    add column client_ca           bytea not null default '', -- PEM
    add column certificate_filters jsonb not null default '[]';

-- What leaves that match a filter may do. A map holds for the filter's content
-- (credential.Filter.ID) as long as the namespace exists.
create table filter_maps (
    account_id         text not null,
    namespace_id       text not null,
    filter_id          text not null,
    filter             jsonb not null,
    service_account_id text not null, -- '' if it gives a permission
    permission         text not null, -- '' if it is a service account
    created_by         text not null, -- principal
    created_at         timestamptz not null,
    primary key (account_id, namespace_id, filter_id)
);
create index filter_maps_service_account on filter_maps (account_id, service_account_id);

-- The certificates of the bundles, for what looks through all accounts.
create table client_cas (
    account_id   text not null,
    namespace_id text not null,
    fingerprint  text not null, -- SHA-256, hex
    namespace    text not null, -- its name
    enabled      boolean not null, -- mTLS is on
    subject      text not null,
    not_after    timestamptz not null,
    primary key (account_id, namespace_id, fingerprint)
);
create index client_cas_not_after on client_cas (not_after) where enabled;

-- Client certificates that were presented on calls, as authorizers tell. Written
-- outside the journal.
create table seen_certificates (
    account_id     text not null,
    namespace_id   text not null,
    fingerprint    text not null, -- SHA-256, hex
    chain          bytea[] not null, -- DER, the leaf first
    subject        text not null,
    issuer         text not null,
    serial         text not null,
    not_before     timestamptz not null,
    not_after      timestamptz not null,
    managed        boolean not null,
    first_seen_at  timestamptz not null, -- to the minute, as the others
    last_seen_at   timestamptz not null,
    refused        text not null, -- why it was not let in when it was last seen; '' if it was
    allowed_at     timestamptz, -- when it was last let in; null: never
    cas            text[] not null, -- the bundle's CAs in its chains then: first the one that it ended at; none of the managed CA
    filter_id      text not null, -- that it matched then; '' if there was none
    primary key (account_id, namespace_id, fingerprint)
);
create index seen_certificates_last on seen_certificates (account_id, namespace_id, last_seen_at);
create index seen_certificates_old on seen_certificates (last_seen_at);
create index seen_certificates_not_after on seen_certificates (not_after);

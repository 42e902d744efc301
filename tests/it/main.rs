//! Integration tests: the real gateway on free ports, each test with its own database and upstream.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![expect(clippy::too_many_lines, reason = "a table of cases is one thing")]

mod audit_api;
mod authentication;
mod backup;
mod bad_input;
mod bounds;
mod breaker;
mod browser;
mod bulk;
mod changes;
mod check_config;
mod client_addresses;
mod command_line;
mod connections;
mod cors;
mod documents;
mod fairness;
mod fault_table;
mod faults;
mod followers;
mod house;
mod identity;
mod identity_docs;
mod images;
mod issuers;
mod kill;
mod lanes;
mod late_landing;
mod leaks;
mod limits;
mod machines;
mod metrics;
mod odd_requests;
mod openapi;
mod openapi_judges;
mod openapi_statuses;
mod openers;
mod packages;
mod pages;
mod policies;
mod provenance;
mod proxies;
mod published_keys;
mod rehearsal;
mod sandbox;
mod secrets;
mod service_manager;
mod storage;
mod streams;
mod support;
mod tls;
mod traces;
mod trail_start;
mod trail_tools;

//! Black-box tests: the real binary, real sockets, and a count of what reached the backend.
//!
//! One binary, a chapter for each subject; `support` holds what they are written with.

#![expect(clippy::unwrap_used, reason = "in a test, a surprise is a failure")]

#[path = "../servers/mod.rs"]
mod servers;
mod support;

mod access_log;
mod answers;
mod attack;
mod bodies;
mod callers;
mod changed_rules;
mod clients;
mod clients_hops;
mod clocks;
mod command_line;
mod crash;
mod deploy;
mod descriptors;
mod disconnects;
mod drain;
mod duplicates;
mod faults;
mod harness;
mod house;
mod http;
mod http_edges;
mod http_hops;
mod http_times;
mod http_uploads;
mod items;
mod items_answers;
mod items_attack;
mod items_crash;
mod items_envelope;
mod items_examples;
mod items_lost;
mod items_oddities;
mod items_refused;
mod items_together;
mod keys;
mod life_cycle;
mod limits;
mod listeners;
mod lock_wait;
mod logging;
mod memory;
mod metrics;
mod names;
mod new_store;
mod outcomes;
mod passthrough;
mod places;
mod places_compared;
mod problems;
mod records_api;
mod records_cli;
mod records_faults;
mod records_items;
mod records_list;
mod records_race;
mod records_reopen;
mod reload;
mod replicas;
mod replicas_cuts;
mod replicas_failover;
mod replicas_faults;
mod replicas_items;
mod replicas_pooler;
mod replicas_startup;
mod replicas_stopped;
mod replicas_trials;
mod replicas_unfinished;
mod restart;
mod servers_chaos;
mod servers_test;
mod startup;
mod tls;
mod try_samples;
mod tutorial;
mod upstream;
mod upstream_answers;
mod wellknown;

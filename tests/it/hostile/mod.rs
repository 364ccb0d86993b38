//! Hostile input: messages and frames from the clauses of RFC 9110, 9112, 9113 and 7541 over raw
//! sockets. Each case asserts the answer, the connection's fate and what reached the backend.
//!
//! The cases stand in text files beside this one, one for each subject, in the form that
//! [`table`] reads.

mod agreement;
mod frames;
mod requests;
mod responses;
mod table;
mod tls;

#[test]
fn the_tables_are_complete() {
    let requests: usize = requests::TABLES.iter().map(|table| table::cases(table).len()).sum();
    let (answers, clauses) = (responses::cases().len(), frames::cases().len());
    assert!(requests + answers >= 300, "{requests} requests, {answers} answers");
    assert!(clauses >= 130, "{clauses} clauses");
}

//! Clauses of RFC 9113 and RFC 7541, by frames that no library sends.
//!
//! A line of frames is a type with flags (`+es` END_STREAM, `+eh` END_HEADERS, `+pad`, `+pri`, `+ack`,
//! or a number), a stream and the payload in words: `hex:…`, `u32:N`, `zero:N`, `set:ID=VALUE`, text in
//! quotation marks, header lines `name=value` (literal; `+name=value` enters the table), `idx:N`, and
//! the heads `get`, `put`, `held` and `keyed`. `RAW` sends bytes, `BARE` leaves out the preface that
//! every other case begins with, and `AWAIT N` waits for the answer on a stream.
//!
//! An expectation is every answer, RST_STREAM, GOAWAY (with its code) and PONG, or `open` or `closed`
//! where there is none; `maybe` before one that may be overtaken by the end of the connection, `busy`
//! where no further stream is possible. In brackets stands what the clause asks for where the library
//! gives another code, or ends the connection in place of the stream (section 5.4.2 allows that).
//! Behind `; ` stands what the backend received. After anything
//! but a GOAWAY and `closed` the connection must answer a PING and a further request; it must have
//! acknowledged all settings.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;

use super::requests::received;
use super::table::{self, Case};
use crate::support::certificates::{Authority, Tls, connect};
use crate::support::frames::{self, Frame, PREFACE};
use crate::support::{Act, Backend, Gate, Gateway, Seen, Setup, answer};

const TABLE: &str = include_str!("frames.txt");

/// Streams that the gateway allows at once.
const STREAMS: usize = 4;
/// The stream of the request that shows an open connection.
const PROBE: u32 = 1001;
const PROBE_PING: &[u8] = b"probe me";

/// Error codes of RFC 9113 section 7, in their order.
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// Types of frames, in the order of their numbers.
const KINDS: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];

/// The cases of the table.
pub(super) fn cases() -> Vec<Case> {
    table::cases(TABLE)
}

fn number(text: &str) -> u32 {
    let digits = text.strip_prefix("0x");
    digits.map_or_else(|| text.parse(), |digits| u32::from_str_radix(digits, 16)).unwrap()
}

/// A frame as a line says it; `case` marks the requests of the heads.
fn frame(line: &str, case: usize) -> Frame {
    let mut words = line.split(' ');
    let mut kind = words.next().unwrap().split('+');
    let name = kind.next().unwrap();
    let position = KINDS.iter().position(|known| *known == name);
    let code = position.unwrap_or_else(|| number(name) as usize);
    let flag = |word: &str| match word {
        "es" | "ack" => 1,
        "eh" => 4,
        "pad" => 8,
        "pri" => 0x20,
        other => number(other),
    };
    let flags = kind.map(flag).fold(0, |flags, flag| flags | flag);
    let stream = number(words.next().expect("a stream"));
    let payload = words.flat_map(|word| payload(word, case)).collect::<Vec<u8>>();
    Frame::new(code.try_into().unwrap(), flags.try_into().unwrap(), stream, payload)
}

/// The bytes of a word.
fn payload(word: &str, case: usize) -> Vec<u8> {
    if let Some(text) = word.strip_prefix('"') {
        return table::bytes(text.strip_suffix('"').expect("a closing mark"), &[]);
    }
    if let Some(digits) = word.strip_prefix("hex:") {
        let digits = table::bytes(digits, &[]);
        let digits = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        return digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    }
    if let Some(value) = word.strip_prefix("u32:") {
        return number(value).to_be_bytes().to_vec();
    }
    if let Some(count) = word.strip_prefix("zero:") {
        return vec![0; number(count) as usize];
    }
    if let Some(index) = word.strip_prefix("idx:") {
        return integer(0x80, 7, number(index) as usize);
    }
    if let Some((id, value)) = word.strip_prefix("set:").and_then(|set| set.split_once('=')) {
        let id = u16::try_from(number(id)).unwrap();
        return [&id.to_be_bytes()[..], &number(value).to_be_bytes()[..]].concat();
    }
    let head = |method: &str, path: &str, more: &str| {
        let lines = format!(
            ":method={method} :scheme=https :authority=shop.example :path={path} x-case={case}{more}"
        );
        lines.split(' ').flat_map(literal).collect()
    };
    match word {
        "get" => head("GET", "/a", ""),
        "held" => head("GET", "/held", ""),
        "put" => head("PUT", "/files/a", ""),
        "keyed" => {
            let more = format!(" idempotency-key=k-{case} content-type=application/json");
            head("POST", "/v1/vouchers/redeem", &more)
        }
        line => literal(line),
    }
}

/// A header line as a literal (RFC 7541 section 6.2.2, with `+` section 6.2.1).
fn literal(line: &str) -> Vec<u8> {
    let (first, line) = line.strip_prefix('+').map_or((0, line), |line| (0x40, line));
    let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no word: {line}"));
    let mut bytes = vec![first];
    for text in [name, value] {
        let text = table::bytes(text, &[]);
        bytes.extend(integer(0, 7, text.len()));
        bytes.extend(text);
    }
    bytes
}

/// An integer with a prefix of `bits` bits (RFC 7541 section 5.1).
fn integer(first: u8, bits: u8, value: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![first | u8::try_from(value).unwrap()];
    }
    let (mut bytes, mut rest) = (vec![first | u8::try_from(most).unwrap()], value - most);
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

/// A connection and everything that the gateway did on it.
struct Dialog {
    stream: Tls,
    effects: Vec<String>,
    answered: BTreeSet<u32>,
    frames: usize,
    acknowledged: usize,
    is_closed: bool,
}

impl Dialog {
    /// A connection without anything sent.
    fn open(gateway: &Gateway, authority: &Authority) -> Self {
        let mut config = authority.trusting(None);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self {
            stream: connect(gateway.addr, &Arc::new(config)).unwrap(),
            effects: Vec::new(),
            answered: BTreeSet::new(),
            frames: 0,
            acknowledged: 0,
            is_closed: false,
        }
    }

    /// Reads a frame; false: the connection has ended.
    fn read(&mut self) -> Result<bool, String> {
        let Ok(frame) = frames::read(&mut self.stream) else {
            self.is_closed = true;
            return Ok(false);
        };
        self.frames += 1;
        let code = |code: u32| CODES.get(code as usize).copied().unwrap_or("unknown");
        let name = KINDS.get(usize::from(frame.kind)).copied().unwrap_or("unknown");
        if (name == "SETTINGS" && frame.flags == 0) != (self.frames == 1) {
            return Err(format!("frame {} is {name}", self.frames));
        }
        let mut ends = matches!(name, "DATA" | "HEADERS") && frame.flags & frames::END_STREAM != 0;
        match name {
            "HEADERS" => {
                let status = frame.status();
                self.effects.push(format!("answer {} {status}", frame.stream));
            }
            "RST_STREAM" if frame.reason() == 0 => ends = true,
            "RST_STREAM" => {
                let effect = format!("RST_STREAM {} {}", frame.stream, code(frame.reason()));
                self.effects.push(effect);
            }
            "GOAWAY" => self.effects.push(format!("GOAWAY {}", code(frame.reason()))),
            "PING" if frame.flags == 1 && frame.payload == [0; 8] => {
                self.effects.push("PONG".to_owned());
            }
            "PING" if frame.flags == 1 => {
                let text = String::from_utf8_lossy(&frame.payload).into_owned();
                self.effects.push(format!("PONG \"{text}\""));
            }
            "SETTINGS" => self.acknowledged += usize::from(frame.flags & 1),
            "DATA" | "PING" | "WINDOW_UPDATE" => {}
            other => return Err(format!("the gateway sent {other}")),
        }
        if ends {
            self.answered.insert(frame.stream);
        }
        Ok(true)
    }

    /// Reads until `is_enough` or the end.
    fn read_until(&mut self, is_enough: impl Fn(&Self) -> bool) -> Result<(), String> {
        while !is_enough(self) && self.read()? {}
        Ok(())
    }

    /// Does what a line says. A connection that has ended takes nothing.
    fn send(&mut self, line: &str, case: usize) -> Result<(), String> {
        if let Some(stream) = line.strip_prefix("AWAIT ") {
            let stream = number(stream);
            return self.read_until(|dialog| dialog.answered.contains(&stream));
        }
        let bytes = match line.strip_prefix("RAW ") {
            Some(bytes) if bytes.starts_with('"') => table::bytes(bytes.trim_matches('"'), &[]),
            Some(bytes) => payload(bytes, case),
            None => frame(line, case).bytes(),
        };
        let written = self.stream.write_all(&bytes).and_then(|()| self.stream.flush());
        drop(written);
        Ok(())
    }

    /// Shows that the connection is open.
    fn probe(&mut self, settings: usize, with_request: bool, case: usize) -> Result<(), String> {
        let ping = Frame::new(6, 0, 0, PROBE_PING);
        let head = format!("HEADERS+es+eh {PROBE} get x-probe=1");
        let mut frames = vec![ping];
        frames.extend(with_request.then(|| frame(&head, case)));
        frames::write(&mut self.stream, &frames).map_err(|error| format!("not open: {error}"))?;
        let pong = format!("PONG \"{}\"", String::from_utf8_lossy(PROBE_PING));
        let mut wanted = vec![pong];
        wanted.extend(with_request.then(|| format!("answer {PROBE} 200")));
        self.read_until(|dialog| wanted.iter().all(|effect| dialog.effects.contains(effect)))?;
        self.effects.retain(|effect| !wanted.contains(effect));
        if self.is_closed {
            return Err(format!("not open: {:?}", self.effects));
        }
        if self.acknowledged != settings {
            return Err(format!("{} of {settings} settings acknowledged", self.acknowledged));
        }
        Ok(())
    }
}

struct House {
    authority: Authority,
    backend: Backend,
    gateway: Gateway,
}

fn house(gate: &Gate) -> House {
    let backend = Backend::start();
    let held = gate.clone();
    backend.script(move |seen| match seen.target() {
        "/held" => answer(200, "{}").after(&held),
        _ => Act::whole(200, &[], b"{}"),
    });
    let (setup, authority) = encrypted(Setup::before(&backend));
    House { authority, backend, gateway: setup.start() }
}

/// Adds TLS and a route for uploads.
pub(super) fn encrypted(setup: Setup) -> (Setup, Authority) {
    let files = "name = \"files\"\nmethods = [\"POST\", \"PUT\"]\npath = \"/files/{*rest}\"\n\
                 mode = \"off\"";
    let setup = setup
        .server("tls = { cert = \"server.crt\", key = \"server.key\" }")
        .limits(&format!("streams = {STREAMS}"))
        .route(files);
    let authority = Authority::new("servers");
    authority.server().write(setup.dir(), "server");
    (setup, authority)
}

/// Requests that the backend receives of a case that is answered with 200 in all its parts. A stream that is
/// reset may arrive as a part.
pub(super) fn accepted(case: &Case) -> Vec<&'static str> {
    let (effects, calls) = case.expected.split_once("; ").unwrap_or((case.expected, ""));
    let is_accepted = |effect: &str| effect.starts_with("answer ") && effect.ends_with(" 200");
    let is_reset = case.sent.iter().any(|line| line.starts_with("RST_STREAM"));
    let is_whole = effects.split(", ").all(is_accepted) && !is_reset;
    if is_whole { calls.split("; ").collect() } else { Vec::new() }
}

/// Sends a case and waits for its answers.
pub(super) fn exchange(gateway: &Gateway, authority: &Authority, case: &Case, at: usize) {
    let mut dialog = Dialog::open(gateway, authority);
    let preface = [PREFACE, &Frame::settings(&[]).bytes()].concat();
    dialog.stream.write_all(&preface).unwrap();
    case.sent.iter().try_for_each(|line| dialog.send(line, at)).unwrap();
    for effect in case.expected.split_once("; ").expect("calls").0.split(", ") {
        let has = |dialog: &Dialog| dialog.effects.iter().any(|it| it == effect);
        dialog.read_until(has).unwrap();
        assert!(has(&dialog), "{}: {:?}", case.name, dialog.effects);
    }
}

fn run(house: &House, case: &Case, at: usize) -> Result<(), String> {
    let before = house.backend.calls();
    let mut dialog = Dialog::open(&house.gateway, &house.authority);
    let is_bare = case.sent[0] == "BARE";
    if !is_bare {
        let preface = [PREFACE, &Frame::settings(&[]).bytes()].concat();
        dialog.stream.write_all(&preface).unwrap();
    }
    let lines = || case.sent.iter().filter(|line| **line != "BARE");
    lines().try_for_each(|line| dialog.send(line, at))?;
    let is_setting =
        |line: &&&str| line.starts_with("SETTINGS") && !line.starts_with("SETTINGS+ack");
    let settings = lines().filter(is_setting).count() + usize::from(!is_bare);
    let (effects, calls) = case.expected.split_once("; ").unwrap_or((case.expected, ""));
    let bare = |effect: &'static str| effect.split(" (").next().unwrap_or(effect);
    let effects: Vec<&str> = effects.split(", ").map(bare).collect();
    let wanted: Vec<&str> = effects
        .iter()
        .filter(|effect| !effect.starts_with("maybe ") && !matches!(**effect, "open" | "busy"))
        .copied()
        .collect();
    let ends = wanted.iter().any(|effect| effect.starts_with("GOAWAY") || *effect == "closed");
    if ends {
        dialog.read_until(|_| false)?;
        if dialog.effects.iter().all(|effect| !effect.starts_with("GOAWAY")) {
            dialog.effects.push("closed".to_owned());
        }
    } else {
        let has = |dialog: &Dialog, wanted: &str| dialog.effects.iter().any(|it| it == wanted);
        dialog.read_until(|dialog| wanted.iter().all(|wanted| has(dialog, wanted)))?;
        dialog.probe(settings, !effects.contains(&"busy"), at)?;
    }
    let mut found = dialog.effects.clone();
    found.dedup();
    let is_wanted = |effect: &String| {
        wanted.contains(&effect.as_str())
            || effects.iter().any(|maybe| maybe.strip_prefix("maybe ") == Some(effect))
    };
    let is_met = wanted.iter().all(|wanted| found.iter().any(|it| it == wanted));
    if !is_met || !found.iter().all(is_wanted) {
        return Err(format!("the gateway did {found:?}"));
    }
    let expected: Vec<&str> = calls.split("; ").filter(|call| !call.is_empty()).collect();
    let is_exact = effects.iter().all(|effect| effect.starts_with("answer"));
    calls_of(&house.backend, before, at, &expected, is_exact)
}

/// Compares what the backend received of a case. What belongs to a stream or a connection that was
/// ended may have arrived or not, and never twice.
fn calls_of(
    backend: &Backend,
    before: usize,
    case: usize,
    expected: &[&str],
    is_exact: bool,
) -> Result<(), String> {
    let is_of_case = |seen: &Seen| {
        let case_line = seen.header("x-case");
        case_line.is_none_or(|line| line == case.to_string()) && seen.all("x-probe").is_empty()
    };
    let seen: Vec<Seen> = backend.seen().split_off(before);
    let seen: Vec<Seen> = seen.into_iter().filter(is_of_case).collect();
    if !is_exact && seen.len() < expected.len() {
        return received(&expected[..seen.len()], &seen);
    }
    received(expected, &seen)
}

#[test]
fn clauses_of_http2_in_single_frames() {
    let gate = Gate::default();
    let house = house(&gate);
    let cases = cases();
    let mut failures = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        if let Err(failure) = run(&house, case, at) {
            let Case { section, name, sent, expected } = case;
            let sent = sent.join("\n  > ");
            failures
                .push(format!("{section}: {name}\n  > {sent}\n  < {expected}\n  but {failure}"));
        }
    }
    gate.open();
    table::report(&failures, cases.len());
}

//! Reverse proxies as they stand before and behind a gateway: nginx, HAProxy, Apache, and Go's
//! `ReverseProxy`.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::place::{Place, free_port};
use super::process::Process;

/// Starts on other ports, when one was taken since it was found free.
const PORT_TRIES: u32 = 20;

/// The program of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HopKind {
    /// nginx with kept connections, and what its defaults repeat turned off.
    Nginx,
    /// nginx with kept connections, and its own rules for what it repeats: everything but `POST`,
    /// `PATCH` and `LOCK`.
    NginxThatRepeats,
    /// nginx told to repeat these as well.
    NginxNonIdempotent,
    /// HAProxy as it is.
    HaProxy,
    /// HAProxy that repeats whatever got no answer.
    HaProxyThatRepeats,
    /// Go's `httputil.ReverseProxy`, `tests/clients/go_proxy`.
    Go,
    /// Apache that passes targets on as they came.
    Apache,
}

/// A hop before one address; ended and removed when dropped.
#[derive(Debug)]
pub(crate) struct Hop {
    process: Process,
    port: u16,
    place: Place,
}

impl Hop {
    /// Starts one that sends everything to `to`.
    ///
    /// # Panics
    /// When the program is not installed or does not start: with its log.
    pub(crate) fn before(to: SocketAddr, kind: HopKind) -> Self {
        let place = Place::new("hop", None);
        let process = Process::new(place.tag().clone(), place.path().join("log"));
        let mut hop = Self { process, port: 0, place };
        for _ in 0..PORT_TRIES {
            hop.port = free_port();
            let addr = hop.addr();
            let command = hop.command(to, kind);
            let ready = || TcpStream::connect(addr).map(drop).map_err(|error| error.to_string());
            match hop.process.start(command, ready) {
                Ok(()) => return hop,
                Err(log) if log.to_lowercase().contains("address already in use") => {}
                Err(log) => panic!("{kind:?} does not start: {log}"),
            }
        }
        panic!("{kind:?} found no free port in {PORT_TRIES} tries")
    }

    /// Starts HAProxy before several gateways, each with the address of its probes.
    ///
    /// # Panics
    /// When the program is not installed or does not start: with its log.
    pub(crate) fn balancing(gateways: &[(SocketAddr, SocketAddr)]) -> Self {
        let place = Place::new("hop", None);
        let process = Process::new(place.tag().clone(), place.path().join("log"));
        let hop = Self { process, port: free_port(), place };
        let server = |(at, (gateway, admin)): (usize, &(SocketAddr, SocketAddr))| {
            format!(
                "server gateway{at} {gateway} check addr {} port {}\n",
                admin.ip(),
                admin.port()
            )
        };
        let servers: String = gateways.iter().enumerate().map(server).collect();
        let text = format!(
            // A check that is slow on a loaded machine is no failure: without a time limit of its
            // own it would fail after the interval.
            "defaults\nmode http\ntimeout connect 2s\ntimeout client 30s\ntimeout server 30s\n\
             timeout check 10s\nfrontend front\nbind {}\ndefault_backend next\n\
             backend next\noption httpchk GET /readyz\noption redispatch\nretries 3\n\
             default-server inter 100ms fall 1 rise 1\n{servers}",
            hop.addr()
        );
        let config = hop.place.write("haproxy.cfg", &text, None);
        let mut command = Command::new(installed("haproxy"));
        command.arg("-db").arg("-f").arg(config);
        let addr = hop.addr();
        let ready = || TcpStream::connect(addr).map(drop).map_err(|error| error.to_string());
        hop.process.start(command, ready).unwrap_or_else(|log| panic!("no start: {log}"));
        hop
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn command(&self, to: SocketAddr, kind: HopKind) -> Command {
        let (addr, folder) = (self.addr(), self.place.path());
        match kind {
            HopKind::Nginx => self.nginx(to, "proxy_next_upstream off;"),
            HopKind::NginxThatRepeats => self.nginx(to, ""),
            HopKind::NginxNonIdempotent => {
                self.nginx(to, "proxy_next_upstream error timeout non_idempotent;")
            }
            HopKind::HaProxy => self.haproxy(to, ""),
            HopKind::HaProxyThatRepeats => self.haproxy(to, "retry-on all-retryable-errors"),
            HopKind::Go => {
                let mut command = Command::new(go_proxy());
                // The name of its process, by which it is found.
                command.arg0(folder.join("go_proxy")).args([addr.to_string(), to.to_string()]);
                command
            }
            HopKind::Apache => self.apache(to),
        }
    }

    fn apache(&self, to: SocketAddr) -> Command {
        let (addr, folder) = (self.addr(), self.place.path().display());
        let modules = ["authz_core", "proxy", "proxy_http", "mpm_event"].map(|name| {
            format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")
        });
        let text = format!(
            "{}ServerRoot {folder}\nServerName a\nListen {addr}\nPidFile {folder}/pid\n\
             DefaultRuntimeDir {folder}\nErrorLog /dev/stderr\nLogLevel warn\nUser www-data\n\
             Group www-data\nAllowEncodedSlashes NoDecode\nMergeSlashes Off\n\
             LimitRequestLine 20000\nLimitRequestFieldSize 64000\nProxyPreserveHost On\n\
             ProxyPassMatch ^(/.*)$ http://{to}$1 nocanon\n",
            modules.concat(),
        );
        let config = self.place.write("apache2.conf", &text, None);
        let mut command = Command::new(installed("apache2"));
        // A single process: others would outlive it when it is killed.
        command.arg("-X").arg("-f").arg(config);
        command
    }

    fn nginx(&self, to: SocketAddr, repeats: &str) -> Command {
        let (addr, folder) = (self.addr(), self.place.path().display());
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {folder}/{name};"));
        let text = format!(
            // Without workers: they would outlive a master that is killed.
            "daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\nlarge_client_header_buffers 4 64k;\n{}\n\
             upstream next {{ server {to}; keepalive 16; }}\n\
             server {{\nlisten {addr};\nlocation / {{\nproxy_pass http://next;\n\
             proxy_http_version 1.1;\nproxy_set_header Connection \"\";\n{repeats}\n}}\n}}\n}}\n",
            paths.join("\n"),
        );
        let config = self.place.write("nginx.conf", &text, None);
        let mut command = Command::new(installed("nginx"));
        command.arg("-e").arg("stderr").arg("-c").arg(config);
        command
    }

    fn haproxy(&self, to: SocketAddr, repeats: &str) -> Command {
        let addr = self.addr();
        let text = format!(
            "global\ntune.bufsize 65536\n\
             defaults\nmode http\ntimeout connect 5s\ntimeout client 30s\ntimeout server 30s\n\
             {repeats}\nfrontend front\nbind {addr}\ndefault_backend next\n\
             backend next\nserver next {to}\n"
        );
        let config = self.place.write("haproxy.cfg", &text, None);
        let mut command = Command::new(installed("haproxy"));
        command.arg("-db").arg("-f").arg(config);
        command
    }
}

/// A program of a Debian package of the same name.
fn installed(name: &str) -> PathBuf {
    let paths = ["/usr/sbin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(name));
    paths.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("{name} is missing: install Debian's package `{name}`, as .ci/test does")
    })
}

fn go_proxy() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/bin/go_proxy");
    assert!(path.is_file(), "{} is missing: .ci/test builds it", path.display());
    path
}

//! What the command line makes of itself: completions, manual pages.

use crate::support::gateway::run;
use crate::support::{AdminClient, Backend, Request, Setup, TOKEN};

/// The commands with a page of their own.
const PAGES: [&str; 6] = ["run", "check", "demo", "store-init", "records-list", "health"];

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let exit = run(&["generate", "completions", shell]);
        assert_eq!(exit.code, Some(0), "{shell}: {exit:?}");
        for word in ["records", "upstream", "token-file"] {
            assert!(exit.stdout.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(run(&["generate", "completions", "cobol"]).code, Some(2));
}

#[test]
fn bash_takes_its_completions() {
    let script = run(&["generate", "completions", "bash"]).stdout;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("oncegate");
    std::fs::write(&file, script).unwrap();
    let ask = "source \"$0\"; COMP_WORDS=(oncegate rec); COMP_CWORD=1; \
               _oncegate oncegate rec oncegate; echo \"${COMPREPLY[@]}\"";
    let output = std::process::Command::new("bash").arg("-c").arg(ask).arg(&file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "records", "{output:?}");
}

#[test]
fn the_manual_is_a_page_or_a_page_for_each_command() {
    let exit = run(&["generate", "man"]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stdout.contains(".TH oncegate 1"), "{}", exit.stdout);
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let exit = run(&["generate", "man", pages.to_str().unwrap()]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let page = |name: &str| std::fs::read_to_string(pages.join(format!("{name}.1"))).unwrap();
    assert!(page("oncegate").contains("oncegate\\-run(1)"));
    for name in PAGES {
        assert!(page(&format!("oncegate-{name}")).contains(".SH SYNOPSIS"), "{name}");
    }
    assert!(page("oncegate-run").contains("upstream"));
    let exit = run(&["generate", "man", "/dev/null/here"]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
}

#[test]
fn a_gateway_without_a_file_takes_a_token() {
    let backend = Backend::start();
    let setup = Setup::before(&backend);
    let token = setup.dir().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let url = format!("http://{}", backend.addr());
    let store = setup.store_path();
    let free = "127.0.0.1:0";
    let start = |more: &[&str]| {
        let base = ["run", "--upstream", &url, "--listen", free, "--admin", free, "--store"];
        let arguments = [&base[..], &[store.to_str().unwrap()], more].concat();
        setup.launch(&arguments).expect("starts")
    };
    let mut gateway = start(&["--token-file", token.to_str().unwrap()]);
    Request::new("POST", "/any").key("k").json("{}").send(gateway.addr).is(200, "executed", "");
    assert_eq!(AdminClient::of(&gateway).id("k").len(), 32);
    assert_eq!(Request::get("/api/records").send(gateway.admin).status, 401);
    gateway.stop();
    // Without a token the API is closed.
    let gateway = start(&[]);
    assert_eq!(Request::get("/api/records").send(gateway.admin).status, 403);
}

//! The arguments that are taken, and `oncegate check`.

use super::*;

#[test]
fn the_command_line_is_well_formed() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
}

fn exit_of(arguments: &str) -> Option<i32> {
    let words = std::iter::once("oncegate").chain(arguments.split_whitespace());
    Cli::try_parse_from(words).err().map(|error| error.exit_code())
}

#[test]
fn usage_decides_the_exit_code() {
    for (arguments, exit) in [
        ("run --config a.toml", None),
        ("run --upstream http://127.0.0.1:9000", None),
        ("run --upstream http://a --listen 127.0.0.1:0 --store s --admin 127.0.0.1:0", None),
        ("demo --keep", None),
        ("store verify --path here --json", None),
        ("store init --path here --if-absent", None),
        ("store info --path here --if-absent", Some(2)),
        ("health", None),
        ("health --config a.toml", None),
        ("health --config a.toml --admin http://a", Some(2)),
        ("tenant --config a.toml", None),
        ("tenant", Some(2)),
        ("generate completions bash", None),
        ("generate completions", Some(2)),
        ("generate completions cobol", Some(2)),
        ("generate man", None),
        ("generate man here", None),
        ("generate", Some(2)),
        ("records list --token-file t --state unknown --limit 5 --json", None),
        ("records list --token-file t --tenant t --subject s", None),
        ("records show 12 --token-file t --admin http://127.0.0.1:1", None),
        ("records resolve 12 --token-file t --as executed --reason r --by b", None),
        ("records resolve 12 --token-file t --as not-executed --reason r", None),
        ("records purge 12 --token-file t", None),
        ("records", Some(2)),
        ("records list", Some(2)),
        ("records list --token-file t --limit 0", Some(2)),
        ("records list --token-file t --subject s --since 2026-01-01T00:00:00Z", None),
        ("records show - 12 13 --token-file t", None),
        ("records resolve 12 --token-file t --as executed --reason r --status 201", None),
        ("records resolve - --token-file t --as executed --reason r --body f --header a:b", None),
        (
            "records resolve 1 --token-file t --as executed --reason r --status 1 --response f",
            Some(2),
        ),
        ("records resolve 12 --token-file t --as executed", Some(2)),
        ("records resolve 12 --token-file t --as maybe --reason r", Some(2)),
        ("records show --token-file t", Some(2)),
        ("--version", Some(0)),
        ("--help", Some(0)),
        ("run", Some(2)),
        ("run --config a.toml --upstream http://a", Some(2)),
        ("run --config a.toml --listen 127.0.0.1:0", Some(2)),
        ("run --upstream http://a --token-file t", None),
        ("run --config a.toml --token-file t", Some(2)),
        ("run --upstream http://a --listen nowhere", Some(2)),
        ("store init", Some(2)),
        ("store", Some(2)),
        ("walk", Some(2)),
        ("", Some(2)),
    ] {
        assert_eq!(exit_of(arguments), exit, "oncegate {arguments}");
    }
}

#[test]
fn check_prints_routes_or_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("oncegate.toml");
    let run = |text: &str, json: bool| {
        std::fs::write(&config, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (against, token_file) = (None, None);
        let args = CheckArgs { config: config.clone(), no_files: false, json, against, token_file };
        let exit = check(&args, &|_| Ok(()), &mut out, &mut err).unwrap();
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    };
    let minimal = include_str!("../../config/minimal.toml");
    let good = format!("{minimal}[tenant]\nheaders = [\"x-api-key\"]\n");
    let (exit, out, err) = run(&good, false);
    assert_eq!((exit, err.as_str()), (Exit::Ok, ""));
    assert!(out.contains("\nROUTE "), "{out}");
    let (exit, out, _) = run(&good, true);
    assert_eq!(exit, Exit::Ok);
    let described: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(described["routes"][0]["mode"], "request");
    assert_eq!(described["warnings"], serde_json::json!([]));
    let trap = good.replace("x-api-key", "authorization");
    let (exit, out, err) = run(&trap, false);
    assert_eq!(exit, Exit::Ok);
    let line = trap.lines().count();
    let place = format!("warning: {}:{line}: ", config.display());
    assert!(err.starts_with(&place) && err.lines().count() == 1, "{err}");
    assert!(out.contains("\nROUTE "), "{out}");
    let (_, out, _) = run(&trap, true);
    let described: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(described["warnings"][0]["line"], line);
    let (exit, out, err) = run("[servr]", false);
    assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
    assert!(err.contains("oncegate.toml:1:2: unknown key `servr`"), "{err}");
    let (exit, out, _) = run("[servr]", true);
    assert_eq!(exit, Exit::Usage);
    let message: serde_json::Value = serde_json::from_str(&out).unwrap();
    // What has no place of its own comes first.
    assert_eq!(message["mistakes"][2]["line"], 1);
}

#[test]
fn the_admin_listener_of_a_run_without_a_file_stays_on_loopback_unless_there_is_a_token() {
    let run_with = |admin: &str, more: &[&str]| {
        let words = ["oncegate", "run", "--upstream", "http://127.0.0.1:9000", "--admin", admin];
        let words = words.iter().chain(more);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Run(args) => args.configuration(),
            other => panic!("{other:?}"),
        }
    };
    let run = |admin: &str| run_with(admin, &[]);
    assert_eq!(run("127.0.0.1:0").unwrap().admin.listen.port(), 0);
    assert_eq!(
        run("0.0.0.0:9090").unwrap_err().to_string(),
        "--admin: 0.0.0.0:9090 is not a loopback address, and needs --token-file FILE"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let with = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run_with("0.0.0.0:9090", &["--token-file", file.to_str().unwrap()])
    };
    let admin = with(" s3cret\n").unwrap().admin;
    assert_eq!(admin.token.unwrap().expose(), "s3cret");
    assert_eq!(
        (admin.listen.to_string(), admin.token_file),
        ("0.0.0.0:9090".to_owned(), Some(file.clone()))
    );
    for text in ["", "\n", "two words", "caf\u{e9}"] {
        let mistake = with(text).unwrap_err().to_string();
        assert!(mistake.contains("must hold one word"), "{mistake}");
    }
    std::fs::remove_file(&file).unwrap();
    let mistake = run_with("127.0.0.1:0", &["--token-file", file.to_str().unwrap()]).unwrap_err();
    assert!(mistake.to_string().starts_with("--token-file: cannot read"), "{mistake}");
}

//! Command lines of the documents, split into words as a shell does, and checked against the
//! program's own definition of its command line and against the files of the repository.

use std::path::Path;

use clap::{CommandFactory as _, Parser as _};
use oncegate::cli::Cli;

use crate::fences::Fence;

/// A command of a line: its words, and the files of its redirections.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ShellCommand {
    pub(crate) words: Vec<String>,
    pub(crate) files: Vec<String>,
}

/// The lines of a block that are typed: all of `sh`; of `console` those after a prompt, with the
/// lines that they continue on.
pub(crate) fn typed(fence: &Fence) -> String {
    if fence.language == "sh" {
        return fence.text.clone();
    }
    let (mut lines, mut continues) = (String::new(), false);
    for line in fence.text.lines() {
        let command = line.strip_prefix("$ ");
        if continues || command.is_some() {
            let command = command.unwrap_or(line);
            continues = command.ends_with('\\');
            lines.push_str(command);
            lines.push('\n');
        }
    }
    lines
}

/// Splits lines into commands at `;`, `&`, `|` and line ends outside of quotes.
pub(crate) fn commands(lines: &str) -> Vec<ShellCommand> {
    let (mut all, mut command) = (Vec::new(), ShellCommand::default());
    let (mut word, mut redirected) = (None::<String>, false);
    let mut chars = lines.chars().peekable();
    let end_word = |word: &mut Option<String>, to_file: &mut bool, into: &mut ShellCommand| {
        let Some(word) = word.take() else { return };
        match std::mem::take(to_file) {
            true => into.files.push(word),
            // Assignments before a command are its environment.
            false if into.words.is_empty() && is_assignment(&word) => {}
            false => into.words.push(word),
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let text = word.get_or_insert_default();
                while let Some(inside) = chars.next().filter(|inside| *inside != c) {
                    let escapes = c == '"' && inside == '\\';
                    text.push(if escapes { chars.next().unwrap_or(inside) } else { inside });
                }
            }
            '\\' if chars.peek() == Some(&'\n') => _ = chars.next(),
            '\\' => word.get_or_insert_default().extend(chars.next()),
            '#' if word.is_none() => while chars.next_if(|next| *next != '\n').is_some() {},
            '<' | '>' => {
                end_word(&mut word, &mut redirected, &mut command);
                redirected = true;
            }
            ' ' => end_word(&mut word, &mut redirected, &mut command),
            '\n' | ';' | '&' | '|' => {
                end_word(&mut word, &mut redirected, &mut command);
                all.push(std::mem::take(&mut command));
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    end_word(&mut word, &mut redirected, &mut command);
    all.push(command);
    all.retain(|command| !command.words.is_empty());
    all
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    })
}

/// Directories of the repository that documents name files of.
const DIRECTORIES: [&str; 9] =
    ["config/", "deploy/", "docs/", "examples/", "src/", "tests/", "bench/", "fuzz/", ".ci/"];

/// The file of the repository that a word names, if the word looks like one.
pub(crate) fn file_of_repository(word: &str) -> Option<&str> {
    let word = word.trim_start_matches("./");
    DIRECTORIES.iter().any(|directory| word.starts_with(directory)).then_some(word)
}

/// Says whether the repository has a file or directory.
pub(crate) fn exists(path: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists()
}

/// The mistake in a command, if any.
pub(crate) fn mistake(command: &ShellCommand) -> Option<String> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    if words[0] == "mkdir" {
        return None;
    }
    for word in words.iter().copied().chain(command.files.iter().map(String::as_str)) {
        if let Some(file) = file_of_repository(word).filter(|file| !exists(file))
            // The fuzzer's own directory, which the lines make.
            && !file.starts_with("fuzz/found/")
        {
            return Some(format!("there is no {file}"));
        }
    }
    match words[0] {
        "oncegate" => usage(&words[1..]),
        "cargo" => cargo(&words[1..]),
        "docker" => docker(&words[1..]),
        "curl" => None,
        word if file_of_repository(word).is_some() => None,
        "export" | "install" | "kill" | "openssl" | "printf" | "python3" | "systemctl"
        | "umask" | "mdbook" => None,
        other => Some(format!("`{other}` is no program that the documents use")),
    }
}

/// The mistake that the command line's own parser finds in arguments of oncegate.
fn usage(arguments: &[&str]) -> Option<String> {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    let mut all = [&["oncegate"], arguments].concat();
    // The documents set ONCEGATE_TOKEN_FILE once.
    if arguments.first() == Some(&"records") && !arguments.contains(&"--token-file") {
        all.extend(["--token-file", "token"]);
    }
    let parsed = Cli::try_parse_from(all);
    let error = parsed.err().filter(|e| !matches!(e.kind(), DisplayHelp | DisplayVersion))?;
    Some(error.to_string())
}

fn cargo(arguments: &[&str]) -> Option<String> {
    match arguments {
        ["run", "--", of_oncegate @ ..] => usage(of_oncegate),
        ["run", "--example", name, ..] => {
            let file = format!("examples/{name}.rs");
            (!exists(&file)).then(|| format!("there is no {file}"))
        }
        ["build" | "test" | "fuzz" | "install", ..] => None,
        _ => Some("cargo is used otherwise than the test knows".to_owned()),
    }
}

/// The arguments after the name of the image are oncegate's.
fn docker(arguments: &[&str]) -> Option<String> {
    match arguments {
        ["run", rest @ ..] => {
            let image = |word: &&str| *word == "oncegate" || word.starts_with("oncegate:");
            // A volume and a container have the same name as the image; the image comes last.
            let named = |word: &&str| image(word) && !word.contains(":/");
            let at = rest.windows(2).position(|two| named(&two[1]) && two[0] != "--name");
            let last = rest.last().filter(|word| named(word)).map(|_| rest.len());
            match (at, last) {
                (Some(at), _) if at + 2 < rest.len() => usage(&rest[at + 2..]),
                (Some(_), _) | (_, Some(_)) => None,
                (None, None) => Some("docker run names no image `oncegate`".to_owned()),
            }
        }
        ["build" | "compose" | "volume", ..] => None,
        _ => Some("docker is used otherwise than the test knows".to_owned()),
    }
}

/// The mistake in a command line of the prose, such as `oncegate records show ID`: command and
/// flags have to be known, and the required arguments may be left out.
pub(crate) fn prose_mistake(line: &str) -> Option<String> {
    let line = line.replace(['[', ']', '…'], " ").replace(", ", "|");
    let mut command = Cli::command();
    for word in line.split_whitespace().skip(1) {
        if let Some(flag) = word.strip_prefix("--") {
            let flag = flag.split(['=', '|']).next().unwrap_or_default();
            let known = command.get_arguments().any(|argument| argument.get_long() == Some(flag));
            if !known && flag != "help" && flag != "version" {
                return Some(format!("`{}` has no --{flag}", command.get_name()));
            }
        } else if command.has_subcommands() && word != "COMMAND" {
            for name in word.split('|') {
                if command.find_subcommand(name).is_none() {
                    return Some(format!("`{}` has no command {name}", command.get_name()));
                }
            }
            let first = word.split('|').next().unwrap_or_default();
            command = command.find_subcommand(first).cloned().unwrap_or(command);
        }
    }
    None
}

/// Says whether a command of oncegate has a flag.
pub(crate) fn has_flag(flag: &str) -> bool {
    fn within(command: &clap::Command, flag: &str) -> bool {
        command.get_arguments().any(|argument| argument.get_long() == Some(flag))
            || command.get_subcommands().any(|sub| within(sub, flag))
    }
    matches!(flag, "help" | "version") || within(&Cli::command(), flag)
}

#[test]
fn lines_are_split_as_a_shell_splits_them() {
    let split = |line: &str| {
        let commands = commands(line).into_iter();
        commands.map(|command| command.words.join("|")).collect::<Vec<_>>()
    };
    assert_eq!(split("a 'b c' \"d \\\" e\" # note"), ["a|b c|d \" e"]);
    assert_eq!(split("A=1 b \\\n  c; d && e | f > g"), ["b|c", "d", "e", "f"]);
    assert_eq!(split("# only a note\n\na#b"), ["a#b"]);
}

#[test]
fn wrong_command_lines_are_found() {
    let wrong = |line: &str| mistake(&commands(line).remove(0));
    for line in [
        "oncegate check --confg oncegate.toml",
        "oncegate runs",
        "oncegate check",
        "cargo run -- demos",
        "docker run --rm -v oncegate:/var/lib/oncegate oncegate store init --if-missing",
        "install -m 644 deploy/systemd/gateway.service /etc/systemd/system/",
        "frobnicate",
    ] {
        assert!(wrong(line).is_some(), "{line}");
    }
    for line in [
        "oncegate --version",
        "docker run -d --name oncegate -v oncegate:/var/lib/oncegate oncegate",
        "cargo run -- demo",
    ] {
        assert_eq!(wrong(line), None, "{line}");
    }
    assert!(prose_mistake("oncegate records list|shows").is_some());
    assert!(prose_mistake("oncegate check --agains URL").is_some());
    assert_eq!(prose_mistake("oncegate try --config FILE [--answer FILE]…"), None);
}

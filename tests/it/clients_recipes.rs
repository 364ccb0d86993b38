//! The loops of `docs/clients.md` for languages whose HTTP clients repeat nothing by themselves:
//! the code of the document is the code that runs here.

use crate::clients::{RECIPES, check, check_in_flight};
use crate::support::programs::Program;

/// The loops, with the language of their block in the document and their program here.
const PROGRAMS: [(Program, &str, &str); 4] = [
    (Program::Fetch, "js", include_str!("../clients/fetch_client.mjs")),
    (Program::Java, "java", include_str!("../clients/JavaClient.java")),
    (Program::CSharp, "csharp", include_str!("../clients/CSharpClient.cs")),
    (Program::Php, "php", include_str!("../clients/guzzle_client.php")),
];

#[test]
fn the_loop_for_fetch() {
    assert_eq!(check(Program::Fetch, "ietf", None), RECIPES);
}

#[test]
fn the_loop_for_java() {
    assert_eq!(check(Program::Java, "ietf", None), RECIPES);
}

#[test]
fn the_loop_for_csharp() {
    assert_eq!(check(Program::CSharp, "ietf", None), RECIPES);
}

#[test]
fn the_loop_for_php() {
    assert_eq!(check(Program::Php, "ietf", None), RECIPES);
}

#[test]
fn loops_that_give_up_early_get_the_answer_of_the_call_in_flight() {
    check_in_flight(&PROGRAMS.map(|(program, ..)| (program, "ietf")));
}

#[test]
fn the_loops_in_the_documents_are_those_that_run() {
    let page = include_str!("../../docs/clients.md");
    for (program, language, source) in PROGRAMS {
        // Blocks for other libraries of the language stand before it.
        let begin = format!("```{language}\n");
        let block = page.split(&begin).skip(1).last().expect("a block of the language");
        let block = block.split("```").next().unwrap_or_default();
        let lines = |text: &str| -> Vec<String> {
            let lines = text.lines().map(|line| line.trim().to_owned());
            lines.filter(|line| !line.is_empty()).collect()
        };
        let (wanted, found) = (lines(block), lines(source));
        assert!(wanted.len() > 7, "{program:?}: {wanted:?}");
        let same = found.windows(wanted.len()).any(|lines| lines == wanted);
        assert!(same, "{program:?}: its program has other lines than docs/clients.md: {wanted:#?}");
    }
}

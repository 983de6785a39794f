//! The list of mutations still fits the tree: each has its line, its test and its scenario.
//!
//! Running them takes long (`make mutants`); that the list has not gone stale is seen at once.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The sources below a folder, put together.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &fs::read_to_string(path).expect("sources are text");
            }
        }
    }
    text
}

#[test]
fn every_mutation_names_a_line_a_test_and_a_scenario_that_exist() {
    let netsim = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = netsim.parent().expect("netsim is a folder of the workspace");
    let list = fs::read_to_string(netsim.join("mutants/list.txt")).expect("the list is there");
    let tests = sources(&root.join("src/core")) + &sources(&netsim.join("tests"));
    let mut mutants = 0;
    for block in list.split("\n\n") {
        let lines = block.lines().filter(|line| !line.starts_with('#'));
        let mutant: BTreeMap<_, _> = lines.filter_map(|line| line.split_once(": ")).collect();
        let Some(name) = mutant.get("name") else { continue };
        mutants += 1;
        let source = fs::read_to_string(root.join(mutant["file"])).expect("its file is there");
        assert_eq!(source.matches(mutant["from"]).count(), 1, "{name}: its line");
        let test = mutant["test"].rsplit("::").next().unwrap_or_default();
        assert!(tests.contains(&format!("fn {test}()")), "{name}: its test {test}");
        let scenario = netsim.join("scenarios").join(mutant["scenario"]).with_extension("toml");
        assert!(scenario.exists(), "{name}: its scenario");
    }
    assert!(mutants >= 10, "{mutants} mutations");
}

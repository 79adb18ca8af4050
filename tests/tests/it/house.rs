//! The structure of burn-sam: what its files import of one another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A module's path, without `crate`: `["step", "memory"]`.
type Module = Vec<String>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/burn-sam/src")
}

/// The modules that are files, each with its text: no comments, and nothing of its tests.
fn modules() -> BTreeMap<Module, String> {
    fn walk(directory: &Path, module: &Module, found: &mut BTreeMap<Module, String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_string();
            let child = || module.iter().cloned().chain([name.clone()]).collect();
            if path.is_dir() {
                walk(&path, &child(), found);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let text = text
                .split("#[cfg(test)]\npub(crate) mod tests")
                .next()
                .unwrap();
            let code = (text.lines())
                .filter(|line| !line.contains("doc = \""))
                .map(|line| line.split("//").next().unwrap());
            let module = match name.as_str() {
                "mod" | "lib" => module.clone(),
                _ => child(),
            };
            found.insert(module, code.collect::<Vec<_>>().join("\n"));
        }
    }

    let mut found = BTreeMap::new();
    walk(&source(), &Vec::new(), &mut found);
    found
}

/// The paths in a text that begin with `crate` or `super`, or with the name of a child, groups taken apart.
fn paths(text: &str, children: &[&str]) -> Vec<Vec<String>> {
    fn names(text: &str) -> Vec<Vec<String>> {
        let text = text.trim();
        let end = (text.find(|c: char| !(c.is_alphanumeric() || c == '_'))).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let Some(rest) = rest.strip_prefix("::") else {
            return vec![vec![name.to_string()]];
        };
        let tails = match rest.strip_prefix('{') {
            None => names(rest),
            Some(group) => {
                let (mut depth, mut parts) = (0, vec![String::new()]);
                for c in group.chars() {
                    match c {
                        '}' if depth == 0 => break,
                        ',' if depth == 0 => parts.push(String::new()),
                        _ => {
                            depth += i32::from(c == '{') - i32::from(c == '}');
                            parts.last_mut().unwrap().push(c);
                        }
                    }
                }
                let parts = parts.iter().filter(|part| !part.trim().is_empty());
                parts.flat_map(|part| names(part)).collect()
            }
        };
        let with_name = |tail: Vec<String>| [name.to_string()].into_iter().chain(tail).collect();
        tails.into_iter().map(with_name).collect()
    }

    let mut found = Vec::new();
    for start in ["crate", "super"].iter().chain(children) {
        for (at, _) in text.match_indices(&format!("{start}::")) {
            let before = text[..at].chars().next_back();
            if before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':')) {
                found.extend(names(&text[at..]));
            }
        }
    }
    found
}

/// What each file imports.
fn imports() -> BTreeMap<Module, BTreeSet<Module>> {
    let modules = modules();
    // What the crate's root hands on, by its name.
    let mut root = BTreeMap::new();
    let children_of = |module: &Module| -> Vec<&str> {
        (modules.keys())
            .filter(|child| child.len() == module.len() + 1 && child.starts_with(module))
            .map(|child| child.last().unwrap().as_str())
            .collect()
    };
    let owner = |path: &[String]| -> Option<Module> {
        (1..=path.len())
            .rev()
            .map(|length| path[..length].to_vec())
            .find(|module| modules.contains_key(module))
    };
    for path in paths(&modules[&Vec::new()], &children_of(&Vec::new())) {
        if let Some(module) = owner(&path) {
            root.insert(path.last().unwrap().clone(), module);
        }
    }
    let mut imports = BTreeMap::new();
    for (module, text) in &modules {
        let mut of_module = BTreeSet::new();
        for path in paths(text, &children_of(module)) {
            let full: Vec<String> = match path[0].as_str() {
                "crate" => path[1..].to_vec(),
                "super" => {
                    let parent = &module[..module.len() - 1];
                    parent.iter().chain(&path[1..]).cloned().collect()
                }
                _ => module.iter().chain(&path).cloned().collect(),
            };
            let target = owner(&full).or_else(|| root.get(full.first()?).cloned());
            of_module.extend(target.filter(|target| target != module));
        }
        imports.insert(module.clone(), of_module);
    }
    // The root and what only hands on are no part of a circle.
    imports.remove(&Vec::new());
    imports
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    let imports = imports();
    assert!(imports.len() > 40, "{} files", imports.len());
    let of_memory = &imports[&vec!["step".to_string(), "memory".to_string()]];
    assert!(
        of_memory.contains(&vec!["method".to_string()]),
        "{of_memory:?}"
    );
    for start in imports.keys() {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(module) = next.pop() {
            for import in imports.get(module).into_iter().flatten() {
                assert_ne!(
                    import, start,
                    "{start:?} imports itself by way of {module:?}"
                );
                if reached.insert(import) {
                    next.push(import);
                }
            }
        }
    }
}

/// Nothing that a method is made of knows the configuration, a module's walks, or another part; memory and the
/// sequence of a step know no method by name.
#[test]
fn parts_know_neither_modules_nor_one_another() {
    let helpers = ["check", "keep", "number"];
    let mut parts = 0;
    for (module, imports) in imports() {
        if let [method, kind, part] = &module[..]
            && method == "method"
        {
            parts += 1;
            for import in &imports {
                let fits = match &import[..] {
                    [method, helper] => method == "method" && helpers.contains(&helper.as_str()),
                    [method, of, other] => {
                        method == "method" && of == kind && matches!(other.as_str(), "way" | "law")
                    }
                    _ => false,
                };
                assert!(fits, "{kind}/{part} imports {import:?}");
            }
        }
        if module.first().is_some_and(|first| first == "step") {
            let config = vec!["config".to_string()];
            assert!(!imports.contains(&config), "{module:?} imports SamConfig");
        }
    }
    assert!(parts >= 18, "{parts} parts");
    for (module, text) in modules() {
        let walks = text.contains("ModuleVisitor") || text.contains("ModuleMapper");
        let is_method = module.first().is_some_and(|first| first == "method");
        assert!(!(walks && is_method), "{module:?} walks over modules");
    }
    let memory = &modules()[&vec!["step".to_string(), "memory".to_string()]];
    for name in ["Msam", "Friendly", "Looksam", "Wsam", "Gsam", "Vasso"] {
        assert!(!memory.contains(name), "the memory knows {name}");
    }
}

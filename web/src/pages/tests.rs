//! What pages, modules and text tables promise one another.

use std::collections::BTreeSet;

use super::*;
use crate::assets::FILES;

fn keys(language: Language) -> BTreeSet<&'static str> {
    texts(language).keys().map(String::as_str).collect()
}

/// The modules, by name.
fn modules() -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES
        .iter()
        .filter(|(name, _)| name.ends_with(".js"))
        .map(|(name, bytes)| (*name, std::str::from_utf8(bytes).expect("our files are UTF-8")))
}

/// What stands between each `before` and the next `after`.
fn between<'a>(source: &'a str, before: &'a str, after: char) -> impl Iterator<Item = &'a str> {
    source.split(before).skip(1).filter_map(move |rest| rest.split_once(after)).map(|(found, _)| found)
}

/// What a module looks up in the tables: literals that look like keys, whether they stand alone in a call or in a
/// conditional, and the beginnings of template literals.
fn looked_up(source: &'static str) -> (BTreeSet<&'static str>, BTreeSet<&'static str>) {
    let keys = keys(Language::En);
    let families: BTreeSet<&str> =
        keys.iter().filter_map(|key| key.split_once('.')).map(|(family, _)| family).collect();
    let mut literals: BTreeSet<&str> = calls(source, "t('", '\'')
        .chain(calls(source, "hasText('", '\''))
        .chain(calls(source, "plural('", '\''))
        .collect();
    for family in &families {
        // A name of one of our files is no key.
        let files =
            |text: &&str| ![".js", ".json", ".svg", ".css"].iter().any(|ending| text.ends_with(ending));
        literals.extend(
            source
                .match_indices(&format!("'{family}."))
                .filter_map(|(at, _)| source[at + 1..].split('\'').next())
                .filter(files),
        );
    }
    let prefixes = source
        .match_indices('`')
        .filter_map(|(at, _)| source[at + 1..].split_once('$'))
        .map(|(prefix, _)| prefix)
        .filter(|prefix| {
            prefix.ends_with('.') && families.contains(prefix.split('.').next().unwrap_or_default())
        })
        .collect();
    (literals, prefixes)
}

/// First arguments of the calls of a function of ours: `at('` is no call of `t('`.
fn calls(source: &'static str, call: &'static str, end: char) -> impl Iterator<Item = &'static str> {
    source
        .match_indices(call)
        .filter(|(at, _)| !source[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '.' || c == '_'))
        .filter_map(move |(at, _)| source[at + call.len()..].split(end).next())
}

#[test]
fn both_languages_say_the_same_things() {
    assert_eq!(keys(Language::Ar), keys(Language::En));
    for key in keys(Language::En) {
        let words = Language::ALL.map(|language| texts(language)[key].as_str());
        let [ar, en] = words;
        assert!(!ar.trim().is_empty() && !en.trim().is_empty(), "{key} is empty");
        // Plural forms may leave the number out: "two listeners" is one word in Arabic.
        if !["listeners.", "room.ahead."].iter().any(|plural| key.starts_with(plural)) {
            let values = words.map(|text| between(text, "{", '}').collect::<BTreeSet<_>>());
            assert_eq!(values[0], values[1], "{key} takes different values");
        }
        for c in ar.chars().chain(en.chars()) {
            assert!(
                !matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'),
                "{key} overrides directions"
            );
        }
    }
}

#[test]
fn every_key_in_use_exists() {
    let keys = keys(Language::En);
    for page in Page::ALL {
        let source = source(page);
        for key in between(source, "data-t=\"", '"').chain(between(source, "data-t-label=\"", '"')) {
            assert!(keys.contains(key), "{page:?} names {key}");
        }
        for name in between(source, "{{", '}') {
            assert!(
                keys.contains(name) || ["lang", "dir", "assets", "text"].contains(&name),
                "{page:?}: {name}"
            );
        }
    }
    for (name, source) in modules() {
        let (literals, prefixes) = looked_up(source);
        for key in literals {
            // Plural forms are named by their stem.
            assert!(
                keys.contains(key) || keys.contains(format!("{key}.other").as_str()),
                "{name} names {key}"
            );
        }
        for prefix in prefixes {
            assert!(keys.iter().any(|key| key.starts_with(prefix)), "{name} names {prefix}…");
        }
    }
}

#[test]
fn every_key_is_in_use() {
    let (mut literals, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
    for (_, source) in modules() {
        let (more_literals, more_prefixes) = looked_up(source);
        literals.extend(more_literals);
        prefixes.extend(more_prefixes);
    }
    for page in Page::ALL {
        literals.extend(between(source(page), "{{", '}'));
    }
    // The page without code is filled by the server.
    literals.extend(between(include_str!("../../pages/plain.html"), "{{", '}'));
    literals.extend(between(include_str!("../plain.rs"), "of(\"", '"'));
    // Errors name themselves, some of them in a template of their own (`text.js`).
    prefixes.insert("problem.");
    for key in keys(Language::En) {
        let plural = literals.contains(key.rsplit_once('.').map_or(key, |(stem, _)| stem));
        let dynamic = prefixes.iter().any(|prefix| prefix.contains('.') && key.starts_with(prefix));
        assert!(literals.contains(key) || plural || dynamic, "{key} is said nowhere");
    }
}

#[test]
fn pages_are_complete_and_in_their_language() {
    for page in Page::ALL {
        for language in Language::ALL {
            let html = super::page(page, language);
            assert!(html.starts_with("<!doctype html>"));
            let (tag, direction) = (language.tag(), language.direction());
            assert!(html.contains(&format!("<html lang=\"{tag}\" dir=\"{direction}\">")), "{page:?}");
            assert!(!html.contains("{{") && !html.contains("}}"), "{page:?} has a placeholder left");
        }
    }
}

#[test]
fn pages_name_files_that_exist_and_what_their_elements_say() {
    for page in Page::ALL {
        let html = super::page(page, Language::Ar);
        let prefix = format!("/assets/{}/", build());
        for name in between(&html, &prefix, '"') {
            assert!(crate::asset(name).is_some(), "{page:?} names {name}");
        }
        // What is filled again when the language changes is what was filled here.
        for (key, rest) in source(page).split("data-t=\"").skip(1).filter_map(|rest| rest.split_once('"')) {
            let filled =
                rest.split_once("{{").and_then(|(_, rest)| rest.split_once("}}")).map(|(name, _)| name);
            let empty = rest.split_once('>').is_some_and(|(_, content)| content.starts_with("</"));
            assert!(empty || filled == Some(key), "{page:?}: {key}");
        }
    }
}

#[test]
fn every_module_a_page_needs_is_asked_for_at_once() {
    for page in Page::ALL {
        let source = source(page);
        let Some(entry) = between(source, "<script type=\"module\" src=\"{{assets}}/", '"').next() else {
            continue;
        };
        let preloaded: BTreeSet<&str> = between(source, "modulepreload\" href=\"{{assets}}/", '"').collect();
        let mut needed = BTreeSet::new();
        let mut open = vec![entry];
        while let Some(name) = open.pop() {
            let (_, code) =
                modules().find(|(module, _)| *module == name).expect("an import of what is there");
            open.extend(between(code, "from './", '\'').filter(|import| needed.insert(*import)));
        }
        assert_eq!(preloaded, needed, "{page:?}");
    }
}

#[test]
fn nothing_is_inline_and_nothing_foreign_is_loaded() {
    for page in Page::ALL {
        let source = source(page);
        for script in source.split("<script").skip(1) {
            let (attributes, rest) = script.split_once('>').expect("a tag ends");
            let data = attributes.contains("application/json") && rest.starts_with("{{text}}</script>");
            assert!(data || rest.starts_with("</script>"), "{page:?} has code inside");
        }
        for forbidden in ["<style", " style=", " onclick=", " onload=", "javascript:", "http:", "https:"] {
            assert!(!source.contains(forbidden), "{page:?} has {forbidden}");
        }
    }
    for (name, source) in modules() {
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"]
        {
            // A place in the room outlives its page.
            let keeps_place = name == "room.js" && forbidden == "localStorage";
            assert!(keeps_place || !source.contains(forbidden), "{name} has {forbidden}");
        }
    }
    assert!(!csp().contains("unsafe"));
    assert!(csp().is_ascii() && !csp().contains("  "));
}

#[test]
fn ids_that_modules_look_up_are_there() {
    for (module, page) in
        [("listener.js", Page::Listener), ("stage.js", Page::Stage), ("index.js", Page::Index)]
    {
        let (_, code) = modules().find(|(name, _)| *name == module).expect("the module of the page");
        for id in between(code, "byId('", '\'') {
            assert_eq!(source(page).matches(&format!(" id=\"{id}\"")).count(), 1, "{page:?} #{id}");
        }
    }
}

//! Texts of some kinds: a folder with a file for each kind, its texts parted by lines of `%`, as Debian's package
//! `fortunes` has them; or a folder with AG News's `train.csv` and `test.csv`.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, ensure};
use digits::data::{Digit, Noise, Split};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Of a text, from the start on, in words.
pub(crate) const LENGTH: usize = 32;
/// The most frequent words; all others are one.
pub(crate) const WORDS: usize = 4000;
/// Where a text has ended.
const NOTHING: f32 = 0.0;
const UNKNOWN: f32 = 1.0;
/// The tokens, with the two above.
pub(crate) const TOKENS: usize = WORDS + 2;

/// All texts, with their kinds.
pub(crate) struct Texts {
    /// Each kind's name.
    pub(crate) kinds: Vec<String>,
    /// Words, and the index of the kind.
    texts: Vec<(Vec<String>, usize)>,
}

impl Texts {
    /// Those of a folder, of these kinds.
    pub(crate) fn read(folder: &Path, kinds: &[String]) -> anyhow::Result<Self> {
        let file = |name: &str| {
            let path = folder.join(name);
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            anyhow::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        if folder.join("train.csv").exists() {
            return Self::news(&(file("train.csv")? + &file("test.csv")?));
        }
        let mut texts = Vec::new();
        for (kind, name) in kinds.iter().enumerate() {
            let all = file(name)?;
            texts.extend(all.split("\n%\n").map(|text| (words(text), kind)));
        }
        Self::of(kinds.to_vec(), texts)
    }

    /// AG News: the kind, 1 to 4, a title and a description, each in quotes.
    fn news(lines: &str) -> anyhow::Result<Self> {
        let mut texts = Vec::new();
        for line in lines.lines() {
            let (kind, text) = line.split_once(',').with_context(|| line.to_string())?;
            let kind: usize = kind
                .trim_matches('"')
                .parse()
                .with_context(|| line.to_string())?;
            ensure!((1..=4).contains(&kind), "a kind of {kind}: {line}");
            texts.push((words(text), kind - 1));
        }
        let kinds = ["world", "sports", "business", "science"];
        Self::of(kinds.map(str::to_string).to_vec(), texts)
    }

    fn of(kinds: Vec<String>, mut texts: Vec<(Vec<String>, usize)>) -> anyhow::Result<Self> {
        texts.retain(|(words, _)| words.len() > 3);
        for (kind, name) in kinds.iter().enumerate() {
            let count = texts.iter().filter(|(_, of)| *of == kind).count();
            ensure!(
                count >= 50,
                "{count} texts of kind {name}, but there must be 50"
            );
        }
        Ok(Self { kinds, texts })
    }

    /// So many to train on, a fifth as many more to choose an epoch by, and to test on up to 1,000 of the others, as `seed`
    /// has it; some labels of all but the last are wrong. The words that are known are those of the training texts.
    pub(crate) fn split(&self, count: usize, noise: f64, seed: u64) -> Split {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut texts: Vec<&(Vec<String>, usize)> = self.texts.iter().collect();
        texts.shuffle(&mut rng);
        let known = known(texts[..count].iter().map(|(words, _)| words));
        let mut all = texts.into_iter().map(|(words, kind)| {
            let token = |word: &String| known.get(word.as_str()).copied().unwrap_or(UNKNOWN);
            let tokens = words.iter().map(token).chain(std::iter::repeat(NOTHING));
            Digit::new(tokens.take(LENGTH), *kind)
        });
        let split = Split {
            train: all.by_ref().take(count).collect(),
            valid: all.by_ref().take(count / 5).collect(),
            test: all.take(1000).collect(),
        };
        split.with_noise(Noise::Random(noise), &mut rng)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }
}

fn words(text: &str) -> Vec<String> {
    let parts = text.split(|letter: char| !letter.is_alphanumeric());
    let words = parts.filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// The tokens of the most frequent words.
fn known<'a>(texts: impl Iterator<Item = &'a Vec<String>>) -> HashMap<&'a str, f32> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for word in texts.flatten() {
        *counts.entry(word).or_default() += 1;
    }
    let mut words: Vec<(&str, usize)> = counts.into_iter().collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let words = words.into_iter().take(WORDS).enumerate();
    words
        .map(|(rank, (word, _))| (word, (rank + 2) as f32))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_tokens_of_words_that_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let many = |word: &str| vec![format!("The {word} is a {word} again."); 60].join("\n%\n");
        std::fs::write(folder.path().join("a"), many("cat")).unwrap();
        std::fs::write(folder.path().join("b"), many("dog")).unwrap();
        let kinds = ["a", "b"].map(str::to_string);
        let texts = Texts::read(folder.path(), &kinds).unwrap();
        assert_eq!(texts.len(), 120);
        let split = texts.split(50, 0.0, 0);
        assert_eq!(
            [split.train.len(), split.valid.len(), split.test.len()],
            [50, 10, 60]
        );
        let text = split.train[0].values();
        assert_eq!(text.len(), LENGTH);
        assert!(text[..6].iter().all(|token| *token >= 2.0));
        assert_eq!(text[1], text[4]);
        assert!(text[6..].iter().all(|token| *token == NOTHING));
        assert!(Texts::read(folder.path(), &["c".to_string()]).is_err());
    }

    #[test]
    fn news_are_read_from_csv() {
        let line =
            |kind: usize| format!("\"{kind}\",\"A title\",\"What happened, and \"\"where\"\".\"\n");
        let lines: String = (0..240).map(|at| line(1 + at % 4)).collect();
        let texts = Texts::news(&lines).unwrap();
        assert_eq!((texts.len(), texts.kinds.len()), (240, 4));
        assert_eq!(
            texts.texts[0].0,
            ["a", "title", "what", "happened", "and", "where"]
        );
        assert!(Texts::news("\"7\",\"a\",\"b\"").is_err());
    }
}

//! Rows of the table of token vectors that an adapter has in place of the base's: PEFT's `trainable_token_indices`.
//!
//! The configuration says which tokens, by a list or for each layer by name; the file has a tensor
//! `<layer>.token_adapter.trainable_tokens_delta`, `[tokens, d]`, which despite its name holds the rows themselves. Of a
//! model whose vocabulary grew PEFT stores the whole tables as well, as `<layer>.token_adapter.base_layer.weight`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::adapter::Tensor;
use super::{AdapterFiles, PeftError};
use crate::config::JsonObject;

/// The key of the configuration.
pub const TOKEN_INDICES: &str = "trainable_token_indices";

/// The key that ties the rows of tied layers, which they are without it as long as they are of the same tokens.
const TYING: &str = "ensure_weight_tying";

/// What the name of a tensor of rows ends with, behind the layer's path.
pub const TOKEN_ROWS: &str = "token_adapter.trainable_tokens_delta";

/// What that of the layer's whole table ends with.
const TABLE: &str = "token_adapter.base_layer.weight";

/// The rows of some tokens of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRows {
    /// The tokens, each once.
    pub indices: Vec<u32>,
    /// Their rows, `[tokens, d]`.
    pub rows: Tensor,
}

/// All rows that an adapter has, by the path of their layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainedTokens {
    /// What was trained.
    pub layers: BTreeMap<String, TokenRows>,
    /// Layers that the configuration does not name and that have the rows of one that it names: heads that are the table.
    pub copies: BTreeSet<String>,
    /// Whole tables, where PEFT stored them.
    pub tables: BTreeMap<String, Tensor>,
}

impl AdapterFiles {
    /// Takes out the rows of tokens with what the configuration says of them; `None` if there are none.
    ///
    /// What is left is an adapter without them, which reads as any other.
    ///
    /// # Errors
    ///
    /// [`PeftError::UnexpectedTensor`] for rows of another number than the tokens, a token twice, or rows of a layer that the
    /// configuration does not name, unless they are those of one that it names; a key of another type.
    pub fn take_tokens(&mut self) -> Result<Option<TrainedTokens>, PeftError> {
        let said = match self.config.get(TOKEN_INDICES) {
            None | Some(Value::Null) => return Ok(None),
            Some(said) => said.clone(),
        };
        let mut tokens = TrainedTokens::default();
        let mut unnamed = Vec::new();
        let names: Vec<String> = self.tensors.keys().cloned().collect();
        for name in names {
            let module = |end: &str| Some(name.strip_suffix(end)?.strip_suffix('.')?.to_owned());
            if let Some(module) = module(TABLE) {
                let table = self.tensors.remove(&name);
                tokens.tables.extend(table.map(|table| (module, table)));
            } else if let Some(module) = module(TOKEN_ROWS) {
                let Some(rows) = self.tensors.remove(&name) else {
                    continue;
                };
                let unexpected = |reason| PeftError::UnexpectedTensor {
                    name: name.clone(),
                    reason,
                };
                let Some(indices) = self.indices_of(&said, &module)? else {
                    unnamed.push((name, module, rows));
                    continue;
                };
                let is_each_once = indices.iter().collect::<BTreeSet<_>>().len() == indices.len();
                let is_matrix = rows.shape.len() == 2 && rows.shape[0] == indices.len();
                match (is_each_once, is_matrix) {
                    (false, _) => {
                        return Err(unexpected("trainable_token_indices has a token twice"));
                    }
                    (_, false) => {
                        let reason = "it is no row for each of trainable_token_indices";
                        return Err(unexpected(reason));
                    }
                    (true, true) => {}
                }
                tokens.layers.insert(module, TokenRows { indices, rows });
            }
        }
        for (name, module, rows) in unnamed {
            let same = tokens.layers.values().find(|named| named.rows == rows);
            let Some(indices) = same.map(|named| named.indices.clone()) else {
                let reason = "trainable_token_indices does not name its layer";
                return Err(PeftError::UnexpectedTensor { name, reason });
            };
            tokens.copies.insert(module.clone());
            tokens.layers.insert(module, TokenRows { indices, rows });
        }
        if tokens.layers.is_empty() {
            return Ok(None);
        }
        let path = self.config.path().to_path_buf();
        let mut config = self.config.map().clone();
        config.insert(TOKEN_INDICES.to_owned(), Value::Null);
        config.remove(TYING);
        self.config = JsonObject::new(&path, config);
        Ok(Some(tokens))
    }

    /// The tokens of a layer: those of a list are of every layer that has rows.
    fn indices_of(&self, said: &Value, module: &str) -> Result<Option<Vec<u32>>, PeftError> {
        let list = match said {
            Value::Array(_) => Some(said),
            Value::Object(by_layer) => by_layer
                .iter()
                .find(|(layer, _)| {
                    let before = module.strip_suffix(layer.as_str());
                    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
                })
                .map(|(_, list)| list),
            _ => None,
        };
        let invalid = || {
            let reason = "it has to be a list of tokens, or one for each layer by its name";
            self.config.invalid(TOKEN_INDICES, reason)
        };
        let is_known = matches!(said, Value::Array(_) | Value::Object(_));
        let Some(list) = list else {
            return match is_known {
                true => Ok(None),
                false => Err(invalid().into()),
            };
        };
        let ids = list.as_array().and_then(|list| {
            let ids = list.iter();
            let ids = ids.map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()));
            ids.collect::<Option<Vec<_>>>()
        });
        ids.map(Some).ok_or_else(|| invalid().into())
    }

    /// Adds the rows of tokens: as a list if only the table has some, else by the last parts of the layers' paths. `head` is the
    /// path of the output head.
    ///
    /// PEFT's list means the table of token vectors, and what is tied to it.
    pub fn put_tokens(&mut self, layers: BTreeMap<String, TokenRows>, head: Option<&str>) {
        let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        let said = match layers.iter().next() {
            None => return,
            Some((path, only)) if layers.len() == 1 && head != Some(path) => json!(only.indices),
            Some(_) => layers
                .iter()
                .map(|(path, rows)| (last(path), json!(rows.indices)))
                .collect(),
        };
        let path = self.config.path().to_path_buf();
        let mut config = self.config.map().clone();
        config.insert(TOKEN_INDICES.to_owned(), said);
        self.config = JsonObject::new(&path, config);
        for (path, TokenRows { rows, .. }) in layers {
            self.tensors.insert(format!("{path}.{TOKEN_ROWS}"), rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    const TABLE_PATH: &str = "model.embed_tokens";
    const HEAD: &str = "lm_head";

    fn rows(indices: &[u32], first: f32) -> TokenRows {
        let data: Vec<f32> = (0..2 * indices.len()).map(|at| first + at as f32).collect();
        TokenRows {
            indices: indices.to_vec(),
            rows: Tensor {
                shape: vec![indices.len(), 2],
                data,
            },
        }
    }

    fn empty() -> AdapterFiles {
        let config = Map::from_iter([
            ("peft_type".to_owned(), json!("LORA")),
            (TOKEN_INDICES.to_owned(), Value::Null),
        ]);
        AdapterFiles::new(config, BTreeMap::new())
    }

    #[test]
    fn rows_are_put_and_taken() {
        let one = BTreeMap::from([(TABLE_PATH.to_owned(), rows(&[7, 5], 1.0))]);
        let mut two = one.clone();
        two.insert(HEAD.to_owned(), rows(&[5, 7], 9.0));
        // PEFT's list would be the table's.
        let alone = BTreeMap::from([(HEAD.to_owned(), rows(&[5], 9.0))]);
        for (layers, said) in [
            (one, json!([7, 5])),
            (two, json!({"embed_tokens": [7, 5], "lm_head": [5, 7]})),
            (alone, json!({"lm_head": [5]})),
        ] {
            let mut files = empty();
            files.put_tokens(layers.clone(), Some(HEAD));
            assert_eq!(files.config.get(TOKEN_INDICES), Some(&said));
            assert_eq!(files.tensors.len(), layers.len());
            let taken = files.take_tokens().expect("reads").expect("rows");
            assert_eq!((&taken.layers, taken.tables.len()), (&layers, 0));
            assert_eq!(files, empty());
        }
        assert_eq!(empty().take_tokens().expect("reads"), None);
        let mut files = empty();
        files.put_tokens(BTreeMap::new(), None);
        assert_eq!(files, empty());
    }

    /// A configuration stays what it is where there are no rows: what it says of tied layers is then of something else.
    #[test]
    fn an_adapter_without_rows_is_left_as_it_is() {
        for said in [Value::Null, json!([]), json!([5])] {
            let config = Map::from_iter([
                (TOKEN_INDICES.to_owned(), said),
                (TYING.to_owned(), json!(true)),
            ]);
            let given = AdapterFiles::new(config, BTreeMap::new());
            let mut files = given.clone();
            assert_eq!(files.take_tokens().expect("reads"), None);
            assert_eq!(files, given);
        }
    }

    #[test]
    fn rows_of_a_layer_without_a_name_are_a_copy_or_refused() {
        let with_head = |head: TokenRows| {
            let mut files = empty();
            let table = BTreeMap::from([(TABLE_PATH.to_owned(), rows(&[7, 5], 1.0))]);
            files.put_tokens(table, Some(HEAD));
            let mut config = files.config.map().clone();
            config.insert(TOKEN_INDICES.to_owned(), json!({"embed_tokens": [7, 5]}));
            let mut tensors = files.tensors;
            tensors.insert(format!("{HEAD}.{TOKEN_ROWS}"), head.rows);
            AdapterFiles::new(config, tensors)
        };
        let mut files = with_head(rows(&[7, 5], 1.0));
        let taken = files.take_tokens().expect("reads").expect("rows");
        assert_eq!(taken.copies, BTreeSet::from([HEAD.to_owned()]));
        assert_eq!(taken.layers[HEAD], taken.layers[TABLE_PATH]);
        let error = with_head(rows(&[7, 5], 2.0)).take_tokens();
        let error = error.expect_err("other rows").to_string();
        assert!(error.contains("does not name its layer"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let name = format!("{TABLE_PATH}.{TOKEN_ROWS}");
        for (said, indices, reason) in [
            (json!({"wte": [5]}), &[5_u32][..], "does not name its layer"),
            (json!({"tokens": [5]}), &[5], "does not name its layer"),
            (json!([5, 6]), &[5], "no row for each"),
            (json!([5, 5]), &[5, 6], "a token twice"),
            (json!("all"), &[5], "a list of tokens"),
            (json!([-1]), &[5], "a list of tokens"),
            (json!({"embed_tokens": 5}), &[5], "a list of tokens"),
        ] {
            let mut config = empty().config.map().clone();
            config.insert(TOKEN_INDICES.to_owned(), said.clone());
            let tensors = BTreeMap::from([(name.clone(), rows(indices, 0.0).rows)]);
            let error = AdapterFiles::new(config, tensors).take_tokens();
            let error = error.expect_err("does not fit").to_string();
            assert!(error.contains(reason), "{said}: {error}");
        }
    }
}

use crate::rows::testing::{read, short, told};
use crate::rows::{LabelKind, Labels, Rows, TAGGED_TOKENS, TokenRow, token_rows};

fn rows(content: &str) -> Rows<TokenRow> {
    token_rows(read("t.conll", content, &TAGGED_TOKENS, None, "").unwrap())
}

fn of(content: &str) -> Vec<String> {
    let rows = rows(content);
    Labels::of_tags(rows.rows.iter().flatten())
        .unwrap()
        .names()
        .to_vec()
}

#[test]
fn classes_are_the_tags_of_the_training_data() {
    assert_eq!(of("a O\nb I-X\n\nc B-X\nd O\n"), ["B-X", "I-X", "O"]);
    assert_eq!(of("a 10\nb 9\n"), ["9", "10"]);
    let rows = rows("a O\nb O\n");
    let error = Labels::of_tags(rows.rows.iter().flatten()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "nothing to tell apart: every row has the label `O`"
    );
}

#[test]
fn a_tag_that_only_other_data_have_is_an_error_in_its_place() {
    let names = ["O", "B-PER", "I-PER"].map(str::to_owned).to_vec();
    let labels = Labels::new(names, LabelKind::One).unwrap();
    let found = labels
        .tags(rows("a B-PER\nb I-PER\n\nc O\nd B-PERS\n\ne 2\nf 0\n"))
        .unwrap();
    let unknown = "t.conll:4: the model has no tag `B-PERS`, which token 2, `d`, has; \
                   its tags are `O`, `B-PER`, `I-PER`";
    let hint = found.rows[1].as_ref().unwrap_err().hint().unwrap();
    assert_eq!(hint, "did you mean `B-PER`?");
    let expected = [
        Ok("[1, 2]".to_owned()),
        Err(unknown.to_owned()),
        Ok("[2, 0]".to_owned()),
    ];
    assert_eq!(told(found, |row| format!("{:?}", row.classes)), expected);

    let mut without = rows("a O\n");
    without.rows[0].as_mut().unwrap().tags = None;
    let error = labels.tags(without).unwrap().rows.remove(0).unwrap_err();
    assert_eq!(short(&error), "t.conll:1: no tags");
}

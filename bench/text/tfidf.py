"""Classifies texts with TF-IDF and logistic regression, by scikit-learn's usual recipe.

    tfidf.py --task sms-spam|chinese-sentiment [--seed 0] [--data DIR] [--threads 2]

English: words and pairs of words. Chinese, which writes no spaces: one to three characters. Sublinear term frequency. The
strength of regularization is the best of 1, 10 and 100 by F1 (macro) in five-fold cross-validation on the training set; the
seed shuffles its folds. Time is that of everything from texts to the fitted model.
"""

import time

import common

FEATURES = {
    "sms-spam": {"analyzer": "word", "ngram_range": (1, 2)},
    "chinese-sentiment": {"analyzer": "char", "ngram_range": (1, 3)},
}
STRENGTHS = [1.0, 10.0, 100.0]


def main():
    chosen = common.arguments(__doc__, list(FEATURES), has_steps=False, settable=["data.examples_per_class"])
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline

    train, test = (common.rows(chosen, part) for part in ("train", "test"))
    start = time.perf_counter()
    pipeline = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, **FEATURES[chosen.task]),
        LogisticRegression(max_iter=1000),
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=chosen.seed)
    search = GridSearchCV(pipeline, {"logisticregression__C": STRENGTHS}, scoring="f1_macro", cv=folds)
    search.fit([row["text"] for row in train], [row["label"] for row in train])
    seconds = time.perf_counter() - start
    predicted = search.predict([row["text"] for row in test])
    metrics = common.class_metrics([row["label"] for row in test], list(predicted), list(search.classes_))
    common.report(
        "tfidf",
        chosen,
        metrics,
        seconds,
        ["scikit-learn"],
        train=len(train),
        test=len(test),
        c=search.best_params_["logisticregression__C"],
    )


if __name__ == "__main__":
    main()

// What the report shows, as data: which evaluations of a store make up a model, and how a document's two answers are told apart.
#include "pipeline/report/report_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "pipeline/report/report_samples.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

using ::testing::ElementsAre;

Json metric(const std::string& name, double value, std::optional<double> base = {}) {
  Json out = {{"metric", name}, {"value", value}, {"n", 4}, {"unit", "fraction"}, {"higher_is_better", true}, {"headline", true}};
  if (base) {
    out["base_value"] = *base;
    out["difference"] = value - *base;
    out["retention"] = value / *base;
  }
  return out;
}

Json task(const std::string& name, const std::vector<Json>& metrics) {
  return {{"task", name}, {"file", name + ".jsonl"}, {"settings", Json::object()}, {"metrics", metrics}};
}

EvaluationRecord record(const std::string& model, const std::string& hash, const std::string& settings,
                        const std::vector<Json>& tasks) {
  EvaluationRecord out;
  out.model_name = model;
  out.model_path = "/m/" + model;
  out.model_hash = hash;
  out.model_bytes = 400;
  out.base_name = "base";
  out.base_path = "/m/base";
  out.base_hash = "b";
  out.base_bytes = 800;
  out.settings_hash = settings;
  Json base_tasks = Json::array();
  for (const Json& one : tasks) base_tasks.push_back(task(one.at("task"), {metric("acc", 0.5)}));
  out.evaluation = {{"model", {{"model", model}, {"description", Json::object()}, {"tasks", tasks}}},
                    {"base", {{"model", "base"}, {"description", Json::object()}, {"tasks", base_tasks}}}};
  return out;
}

StoredDocument document(int64_t at_task, int64_t position, const Json& model, std::optional<Json> base = {}) {
  return {at_task, position, {{"question", "q" + std::to_string(position)}, {"answer", "right"}}, model, std::move(base)};
}

Json said(const std::string& text, double score) { return {{"text", text}, {"scores", {{"acc", score}}}}; }

class ReportDataTest : public testing::Test {
 protected:
  test::TemporaryFolder folder_;
  Store store_{folder_.path() / "s.db"};
};

TEST_F(ReportDataTest, PutsAllEvaluationsOfAModelTogether) {
  store_.put_evaluation(
      record("small", "h", "1", {task("arc", {metric("acc", 0.4, 0.5)}), task("sums", {metric("acc", 0.2, 0.5)})}),
      {document(0, 0, said("old", 1), said("b", 1)), document(1, 0, said("sum", 1), said("sum", 1))});
  store_.put_evaluation(record("other", "o", "1", {task("arc", {metric("acc", 0.1, 0.5)})}), {});
  store_.put_evaluation(record("small", "h", "2", {task("arc", {metric("acc", 0.45, 0.5)})}),
                        {document(0, 0, said("new", 0), said("b", 1))});
  const Json data = report_data(store_, {});
  ASSERT_EQ(data["models"].size(), 1u);  // the one that was evaluated last
  const Json& model = data["models"][0];
  EXPECT_EQ(model["name"], "small");
  EXPECT_EQ(model["base"]["name"], "base");
  const Json& tasks = model["evaluation"]["model"]["tasks"];
  ASSERT_EQ(tasks.size(), 2u);
  EXPECT_EQ(tasks[0]["task"], "sums");  // evaluated before the other
  EXPECT_EQ(tasks[1]["task"], "arc");
  EXPECT_EQ(tasks[1]["metrics"][0]["value"], 0.45);  // the newest that has the task
  EXPECT_FALSE(model["evaluation"]["verdict"].get<std::string>().empty());
  ASSERT_EQ(model["samples"].size(), 2u);
  EXPECT_EQ(model["samples"][0]["m"]["x"], "sum");
  EXPECT_EQ(model["samples"][0]["t"], 0);
  EXPECT_EQ(model["samples"][1]["m"]["x"], "new");
  EXPECT_EQ(model["samples"][1]["t"], 1);
  EXPECT_THAT(model["sample_metrics"].get<std::vector<std::string>>(), ElementsAre("acc", "acc"));

  std::vector<std::string> family;
  for (const Json& member : model["family"]) family.push_back(member["name"]);
  EXPECT_THAT(family, testing::UnorderedElementsAre("small", "base", "other"));
  for (const Json& member : model["family"]) {
    EXPECT_EQ(member["is_this"], member["name"] == "small");
    EXPECT_EQ(member["is_base"], member["name"] == "base");
    EXPECT_EQ(member["bytes"], member["name"] == "base" ? 800 : 400);
  }
  EXPECT_EQ(report_data(store_, {"*", std::nullopt})["models"].size(), 2u);
}

// 40 documents beside 400 would be a plot of the limit, not of the models.
TEST_F(ReportDataTest, SizeAgainstQualityComparesWhatWasAskedAlike) {
  const auto asked = [](double value, int64_t limit, int64_t documents, const std::string& data = "d",
                        const std::string& dtype = "float32") {
    Json out = task("arc", {metric("acc", value, 0.5)});
    out["data_sha256"] = data;
    out["settings"] = {{"limit", limit},
                       {"documents", documents},
                       {"num_fewshot", 0},
                       {"model", {{"dtype", dtype}, {"bos_policy", "auto"}, {"name", std::to_string(value)}}}};
    return out;
  };
  const auto put = [&](const std::string& name, const std::string& settings, const Json& arc) {
    EvaluationRecord one = record(name, name, settings, {arc});
    Json& base = one.evaluation.at("base").at("tasks").at(0);
    base["data_sha256"] = arc.at("data_sha256");
    base["settings"] = arc.at("settings");
    base["metrics"] =
        Json::array({metric("acc", 0.5 + 0.001 * static_cast<double>(arc.at("settings").at("documents").get<int64_t>()))});
    store_.put_evaluation(one, {});
  };
  put("same", "1", asked(0.41, 0, 40));  // all 40 rows
  put("both", "1", asked(0.42, 40, 40));
  put("both", "2", asked(0.99, 400, 400));
  put("longer", "1", asked(0.43, 400, 400));
  put("other rows", "1", asked(0.44, 40, 40, "e"));
  put("other type", "1", asked(0.45, 40, 40, "d", "bfloat16"));
  put("this", "1", asked(0.4, 40, 40));
  std::map<std::string, double> drawn;
  std::set<std::string> left_out;
  const Json data = report_data(store_, {"this", std::nullopt});
  for (const Json& member : data["models"][0]["family"]) {
    for (const Json& figure : member["figures"]) drawn[member["name"].get<std::string>()] = figure["value"].get<double>();
    if (member.contains("other_settings")) left_out.insert(member["name"].get<std::string>());
  }
  EXPECT_EQ(drawn, (std::map<std::string, double>{{"this", 0.4}, {"same", 0.41}, {"both", 0.42}, {"base", 0.54}}));
  EXPECT_EQ(left_out, (std::set<std::string>{"longer", "other rows", "other type"}));
}

TEST_F(ReportDataTest, MeasuringAgainReplacesTheEvaluationAndItsDocuments) {
  const std::vector<Json> tasks = {task("arc", {metric("acc", 0.4, 0.5)})};
  const int64_t first =
      store_.put_evaluation(record("small", "h", "1", tasks), {document(0, 0, said("a", 1)), document(0, 1, said("b", 1))});
  EXPECT_EQ(store_.put_evaluation(record("small", "h", "1", tasks), {document(0, 0, said("c", 1), said("d", 0))}), first);
  EXPECT_NE(store_.put_evaluation(record("small", "other weights", "1", tasks), {}), first);
  const auto documents = store_.list_documents(first);
  ASSERT_EQ(documents.size(), 1u);
  EXPECT_EQ(documents[0].model["text"], "c");
  ASSERT_TRUE(documents[0].base);
  EXPECT_EQ((*documents[0].base)["text"], "d");
  EXPECT_EQ(store_.list_evaluations({"", "/m/small", std::nullopt, 0}).size(), 2u);
}

TEST_F(ReportDataTest, ARunHasTheModelsThatItEvaluated) {
  const int64_t run = store_.begin_run("demo", Json::object(), "1");
  EvaluationRecord of_run = record("mine", "h", "1", {task("arc", {metric("acc", 0.4, 0.5)})});
  of_run.run_id = run;
  store_.put_evaluation(of_run, {});
  // Its second run found everything up to date: nothing was evaluated, and the stage names the artifact.
  const int64_t later = store_.begin_run("demo", Json::object(), "1");
  const int64_t stage = store_.begin_stage(later, "quantize", "key", Json::object());
  store_.finish_stage(stage, "up_to_date", {{"paths", {{"artifact", {{"path", "/m/mine"}}}}}, {"values", Json::object()}}, 0);
  store_.put_evaluation(record("other", "o", "1", {task("arc", {metric("acc", 0.1, 0.5)})}), {});
  for (const int64_t id : {run, later}) EXPECT_EQ(report_data(store_, {"", id})["models"][0]["name"], "mine");
}

TEST_F(ReportDataTest, HasTheSensitivityOfTheModel) {
  store_.put_evaluation(record("small", "h", "1", {task("arc", {metric("acc", 0.4, 0.5)})}), {});
  ResultRecord result;
  result.model_name = "small";
  result.model_path = "/m/small";
  result.model_hash = "h";
  result.task = "sensitivity";
  result.metric = "kl_divergence";
  result.compared_with = "base";
  const auto put = [&](const std::string& protocol, double value) {
    result.protocol = protocol;
    result.value = value;
    store_.put_result(result);
  };
  result.data_hash = "an earlier text";
  put("only model.layers.3", 9);
  result.data_hash = "this text";
  put("only model.layers.3", 0.25);
  put("all but model.layers.3", 0.75);
  put("something else", 9);
  result.model_hash = "of other weights";
  put("only model.layers.3", 9);
  const Json rows = report_data(store_, {})["models"][0]["sensitivity"];
  ASSERT_EQ(rows.size(), 2u);
  for (const Json& row : rows) {
    EXPECT_EQ(row["part"], "model.layers.3");
    EXPECT_EQ(row["value"], row["only"].get<bool>() ? 0.25 : 0.75);
  }
}

std::string outcome(const Json& model, std::optional<Json> base) {
  return sample_json(document(0, 0, model, std::move(base)), "acc")["o"];
}

TEST(ReportSamples, TellOutcomesApart) {
  EXPECT_EQ(outcome(said("x", 0), said("y", 1)), "lost");
  EXPECT_EQ(outcome(said("x", 1), said("y", 0)), "gained");
  EXPECT_EQ(outcome(said("x", 1), said("y", 1)), "changed");
  EXPECT_EQ(outcome(said("x", 0), said("x", 0)), "same");
  EXPECT_EQ(outcome(said("x", 0.6), said("x", 0.9)), "same");  // both count as right
  EXPECT_EQ(outcome(said("x", 0.4), said("x", 0.6)), "lost");
  EXPECT_EQ(outcome(said("x", 1), {}), "right");
  EXPECT_EQ(outcome(said("x", 0), {}), "wrong");
  EXPECT_EQ(outcome({{"text", "x"}, {"scores", Json::object()}}, {}), "none");
}

TEST(ReportSamples, CompareTheScoredAnswerBeforeTheText) {
  const auto response = [](const std::string& text, const std::string& extracted) {
    return Json{{"text", text},
                {"extracted", {{"strict", extracted}}},
                {"scores", {{"exact_match,strict", 0.0}, {"exact_match,other", 1.0}}}};
  };
  const auto of = [&](const Json& model, const Json& base) {
    return sample_json(document(0, 0, model, base), "exact_match,strict");
  };
  EXPECT_EQ(of(response("so it is 5", "5"), response("it is 5", "5"))["o"], "same");
  EXPECT_EQ(of(response("it is 5", "5"), response("it is 6", "6"))["o"], "changed");
  const Json sample = of(response("it is 5", "5"), response("it is 5", "5"));
  EXPECT_EQ(sample["m"]["e"], "5");
  EXPECT_EQ(sample["m"]["s"], 0.0);
  EXPECT_FALSE(sample["b"].contains("x"));  // the same text is not written twice
}

TEST(ReportSamples, ShowChoices) {
  StoredDocument choices{
      0,
      3,
      {{"question", "Q"}, {"continuations", {" a", " b", " c"}}, {"prompts", {"Q A:"}}, {"gold", 2}, {"answer", "c"}},
      {{"log_probs", {-3.0, nullptr, -1.0}}, {"scores", {{"acc", 1.0}}}},
      Json{{"log_probs", {-1.0, -2.0, -3.0}}, {"scores", {{"acc", 0.0}}}}};
  Json sample = sample_json(choices, "acc");
  EXPECT_EQ(sample["c"].size(), 3u);
  EXPECT_EQ(sample["g"], 2);
  EXPECT_EQ(sample["m"]["k"], 2);
  EXPECT_EQ(sample["b"]["k"], 0);
  EXPECT_EQ(sample["o"], "gained");
  // Choices inside the prompts: winogrande.
  choices.document = {{"continuations", {" was heavy."}}, {"prompts", {"The cup", "The table"}}, {"answer", "cup"}, {"gold", 0}};
  sample = sample_json(choices, "acc");
  EXPECT_EQ(sample["q"], "…  was heavy.");
  EXPECT_EQ(sample["c"], Json({"The cup", "The table"}));
}

TEST(ReportSamples, CutLongTextsBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "é";
  const Json sample = sample_json(document(0, 0, said("x" + text, 1)), "acc");
  const std::string shown = sample["m"]["x"];
  EXPECT_LT(shown.size(), 6100u);
  EXPECT_EQ(Json::parse(dump_json(sample)), sample);  // still UTF-8: nothing was replaced
}

}  // namespace
}  // namespace salient::pipeline

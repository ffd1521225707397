// The report in a real browser: what it draws, what it asks for, and whether it can be used.
#include "pipeline/report/report_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/file.h"
#include "pipeline/report/report_data.h"
#include "support/browser.h"
#include "support/demo_run.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr const char* kHostile =
    "</script><script>window.broken = 1</script><img src='http://127.0.0.1:9/x' onerror='window.broken = 2'><!-- {{data}} & "
    "\"quoted\"";

Json metric_of(const char* name, double value, double base) {
  return {{"metric", name},
          {"value", value},
          {"stderr", 0.01},
          {"n", 100},
          {"unit", "fraction"},
          {"higher_is_better", true},
          {"headline", true},
          {"base_value", base},
          {"difference", value - base},
          {"difference_stderr", 0.004},
          {"retention", value / base},
          {"retention_stderr", 0.01}};
}

StoredDocument choice(int64_t i, bool right, bool base_right) {
  const auto response = [](bool is_right) {
    return Json{{"scores", {{"acc", is_right ? 1.0 : 0.0}}}, {"log_probs", is_right ? Json{-1.5, -2.0} : Json{-3.0, -2.0}}};
  };
  const Json document = {{"line", i + 1},           {"question", "Question " + std::to_string(i)},
                         {"prompts", {"Question"}}, {"continuations", {" warm", " cold"}},
                         {"answer", "warm"},        {"gold", 0}};
  return {0, i, document, response(right), response(base_right)};
}

StoredDocument text(int64_t i, const std::string& said, const std::string& base_said, double score, double base_score) {
  return {1,
          i,
          {{"line", i + 1}, {"question", "Sum " + std::to_string(i)}, {"answer", "24"}},
          {{"scores", {{"exact_match,strict", score}}}, {"text", said}, {"extracted", {{"strict", "x"}}}},
          Json{{"scores", {{"exact_match,strict", base_score}}},
               {"text", base_said},
               {"extracted", {{"strict", base_score > 0 ? "24" : "x"}}}}};
}

// One model and its base: of `count` choices every tenth is lost and every twenty-fifth gained (lost wins), and three texts, two of
// which are hostile.
void put_made_evaluation(Store& store, int64_t count) {
  std::vector<StoredDocument> documents;
  for (int64_t i = 0; i < count; ++i) documents.push_back(choice(i, i % 10 != 0, i % 10 == 0 || i % 25 != 5));
  documents.push_back(text(0, "7 * 3 = 21, and 3 is 25", "7 * 3 = 21, and 3 is 24", 0, 1));
  documents.push_back(text(1, kHostile, kHostile, 0, 0));
  documents.push_back(text(2, "needle in the hay", "hay", 1, 1));
  EvaluationRecord record;
  record.model_name = kHostile;
  record.model_path = "/models/quantized";
  record.model_hash = "a";
  record.model_bytes = 4'000'000;
  record.base_name = "base";
  record.base_path = "/models/base";
  record.base_hash = "b";
  record.base_bytes = 8'000'000;
  const Json arc = {
      {"task", "arc"}, {"file", "arc.jsonl"}, {"settings", Json::object()}, {"metrics", {metric_of("acc", 0.9, 0.96)}}};
  const Json sums = {
      {"task", "sums"},
      {"file", "sums.jsonl"},
      {"settings", Json::object()},
      {"metrics", {metric_of("exact_match,strict", 0.3, 0.6)}},
      {"flags", {{{"kind", "repetition"}, {"share", 0.5}, {"document", 3}, {"text", "half of the texts repeat themselves"}}}}};
  const Json base_metric = {{"metric", "acc"}, {"value", 0.96}, {"n", 100}, {"unit", "fraction"}, {"higher_is_better", true}};
  const Json base_task = {{"task", "arc"}, {"file", "arc.jsonl"}, {"settings", Json::object()}, {"metrics", {base_metric}}};
  record.evaluation = {{"model", {{"model", kHostile}, {"description", Json::object()}, {"tasks", {arc, sums}}}},
                       {"base", {{"model", "base"}, {"description", Json::object()}, {"tasks", {base_task}}}}};
  store.put_evaluation(record, documents);
}

class ReportPage : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto program = test::Browser::find();
    if (!program)
      GTEST_SKIP()
          << "no chromium, chromium-browser or google-chrome on the PATH: apt-get install chromium, or set SALIENT_CHROMIUM";
    browser_.emplace(*program);
    browser_->set_color_scheme("light");
    browser_->set_viewport(1280, 900);
  }

  void open_made(int64_t count) {
    Store store(folder_.path() / "made.db");
    put_made_evaluation(store, count);
    write_file(folder_.path() / "made.html", report_page(report_data(store, {})));
    open(folder_.path() / "made.html");
  }
  // Plots are drawn once the page knows its width.
  void open(const fs::path& page) {
    browser_->open(page);
    EXPECT_TRUE(browser_->wait_until("[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('svg'))"));
  }

  std::string text_of(const std::string& selector) {
    return browser_->evaluate("document.querySelector(" + dump_json(Json(selector)) + ").textContent").get<std::string>();
  }
  int64_t count(const std::string& selector) {
    return browser_->evaluate("document.querySelectorAll(" + dump_json(Json(selector)) + ").length").get<int64_t>();
  }
  std::vector<std::string> outcomes() {
    return browser_->evaluate("[...document.querySelectorAll('.sample')].map((card) => card.dataset.outcome)")
        .get<std::vector<std::string>>();
  }
  std::string background() { return browser_->evaluate("getComputedStyle(document.body).backgroundColor").get<std::string>(); }
  void expect_quiet() {
    EXPECT_THAT(browser_->complaints(), IsEmpty());
    EXPECT_THAT(browser_->requests(), IsEmpty());
  }
  // Marks inside the plot, each with an extent on the page.
  void expect_drawn(const std::string& plot, int64_t least) {
    const Json sizes = browser_->evaluate(
        "[...document.querySelectorAll('" + plot + " svg *')].filter((mark) => /^(rect|circle|line|text)$/.test(mark.tagName))" +
        ".map((mark) => mark.getBoundingClientRect()).filter((box) => box.width > 0 || box.height > 0).length");
    EXPECT_GE(sizes.get<int64_t>(), least) << plot;
    const Json box = browser_->evaluate("(({ width, height }) => [width, height])(document.querySelector('" + plot +
                                        " svg').getBoundingClientRect())");
    EXPECT_GT(box.at(0).get<double>(), 200) << plot;
    EXPECT_GT(box.at(1).get<double>(), 40) << plot;
  }

  test::TemporaryFolder folder_;
  std::optional<test::Browser> browser_;
};

TEST_F(ReportPage, ShowsARealEvaluationOfTheDemo) {
  const std::string demo = test::kDemoModel.string();
  const auto run = [&](std::vector<std::string> words) {
    const test::ProgramResult result = test::run_program(std::move(words), folder_.path());
    ASSERT_EQ(result.exit_code, 0) << result.err;
  };
  run({"quantize", "--model", demo, "--calib", test::write_calibration(folder_.path()).string(), "--out", "quantized",
       "--max-seq-len", "128"});
  run({"eval", "quantized", "--compare-with", demo, "--tasks", "perplexity,arc,openmath", "--data",
       "perplexity=" + demo + "/data/heldout.txt", "--data", "arc=" + demo + "/data/arc_test.jsonl", "--data",
       "openmath=" + demo + "/data/openmath_test.jsonl", "--limit", "12", "--no-throughput", "--store", "s.db"});
  run({"report", "--store", "s.db", "-o", "page.html"});
  open(folder_.path() / "page.html");
  EXPECT_EQ(text_of("h1"), "quantized");
  EXPECT_THAT(text_of("#verdict"), Not(IsEmpty()));
  EXPECT_THAT(text_of("#results"), HasSubstr("perplexity"));
  expect_drawn("#retention", 6);
  expect_drawn("#family", 6);
  expect_drawn("#layer-errors", 28 * 4);
  expect_drawn("#layer-shares", 28);
  expect_drawn("#salience", 28 * 5);
  EXPECT_EQ(text_of("#sample-count"), "24 documents, 1 to 10 shown");
  EXPECT_EQ(count(".sample"), 10);
  EXPECT_EQ(count(".sample .choices"), 10);  // arc stands first
  browser_->evaluate(
      "document.querySelector('#salience select').value = 'down_proj'; document.querySelector('#salience "
      "select').dispatchEvent(new Event('change'))");
  EXPECT_TRUE(browser_->wait_until("document.querySelectorAll('#salience .layer').length === 4"));
  expect_quiet();
}

TEST_F(ReportPage, FiltersAndSearchesSamples) {
  open_made(100);
  EXPECT_EQ(text_of("[data-outcome=lost].chip .count"), "11");  // ten choices and a text
  EXPECT_EQ(text_of("[data-outcome=gained].chip .count"), "2");
  browser_->click("[data-outcome=gained].chip");
  EXPECT_EQ(outcomes(), std::vector<std::string>(2, "gained"));
  EXPECT_EQ(text_of("#sample-count"), "2 documents");
  browser_->click("[data-outcome=lost].chip");
  EXPECT_THAT(outcomes(), Each("lost"));
  EXPECT_EQ(count(".sample"), 10);
  browser_->click("#next-page");
  EXPECT_EQ(count(".sample"), 1);
  EXPECT_THAT(text_of(".answer.base mark"), HasSubstr("24"));  // what differs between the two answers, and nothing else
  EXPECT_EQ(text_of(".answer.model mark"), "25");
  EXPECT_EQ(count(".sample mark"), 2);
  browser_->click("[data-outcome='']");
  browser_->click("#sample-search");
  browser_->type("NEEDLE");
  EXPECT_TRUE(browser_->wait_until("document.querySelectorAll('.sample').length === 1"));
  EXPECT_THAT(text_of(".sample"), HasSubstr("needle in the hay"));
  EXPECT_EQ(outcomes(), std::vector<std::string>{"changed"});
  expect_quiet();
}

TEST_F(ReportPage, ShowsTheDocumentOfAFlag) {
  open_made(20);
  EXPECT_THAT(text_of(".flags"), HasSubstr("sums: half of the texts repeat themselves"));
  browser_->click(".flags .example");
  EXPECT_EQ(count(".sample"), 1);
  EXPECT_THAT(text_of(".sample"), HasSubstr("needle"));  // line 3 of its file
  browser_->click("[data-outcome='']");
  EXPECT_EQ(count(".sample"), 10);
  expect_quiet();
}

TEST_F(ReportPage, CanBeUsedWithTheKeyboard) {
  open_made(30);
  browser_->evaluate("document.querySelector('#sample-search').focus()");
  browser_->press("Tab");  // "All"
  browser_->press("Tab");
  EXPECT_EQ(browser_->evaluate("document.activeElement.dataset.outcome"), Json("lost"));
  browser_->press("Enter");
  EXPECT_THAT(outcomes(), Each("lost"));
  EXPECT_EQ(browser_->evaluate("document.activeElement.getAttribute('aria-pressed')"), Json("true"));
}

TEST_F(ReportPage, TakesWhatModelsWriteAsText) {
  open_made(5);
  EXPECT_EQ(text_of("h1"), kHostile);
  browser_->click("#sample-search");
  browser_->type("window.broken");
  EXPECT_TRUE(browser_->wait_until("document.querySelectorAll('.sample').length === 1"));
  EXPECT_THAT(text_of(".answer.model"), HasSubstr(kHostile));
  EXPECT_TRUE(browser_->evaluate("window.broken ?? null").is_null());
  EXPECT_EQ(count("img"), 0);
  expect_quiet();
}

TEST_F(ReportPage, FollowsTheColorScheme) {
  open_made(5);
  const std::string light = background();
  browser_->set_color_scheme("dark");
  EXPECT_TRUE(browser_->wait_until("document.documentElement.dataset.theme === 'dark'"));
  const std::string dark = background();
  EXPECT_NE(light, dark);
  EXPECT_EQ(browser_->evaluate("getComputedStyle(document.documentElement).colorScheme"), Json("dark"));
  browser_->set_color_scheme("light");
  EXPECT_TRUE(browser_->wait_until("document.documentElement.dataset.theme === 'light'"));
  browser_->click("#theme");  // from automatic to what the system does not say
  EXPECT_EQ(background(), dark);
  expect_quiet();
}

TEST_F(ReportPage, FitsAPhone) {
  browser_->set_viewport(390, 844, /*phone=*/true);
  open_made(40);
  EXPECT_LE(browser_->evaluate("document.documentElement.scrollWidth").get<int64_t>(), 390);
  browser_->click("[data-outcome=wrong].chip");
  EXPECT_LE(browser_->evaluate("document.documentElement.scrollWidth").get<int64_t>(), 390);
  expect_drawn("#retention", 6);
  browser_->set_viewport(844, 390, /*phone=*/true);
  EXPECT_TRUE(browser_->wait_until(
      "document.querySelector('#retention svg').getBoundingClientRect().width > 390"));  // drawn again for the new width
  expect_quiet();
}

TEST_F(ReportPage, KeepsOnlyOnePageOfManyDocuments) {
  open_made(10'000);
  EXPECT_EQ(text_of("#sample-count"), "10,003 documents, 1 to 10 shown");
  EXPECT_LT(count("*"), 1500);
  browser_->click("#sample-search");
  browser_->type("Question 9876");
  EXPECT_TRUE(browser_->wait_until("document.querySelectorAll('.sample').length === 1"));
  expect_quiet();
}

TEST(ReportText, HoldsNoMarkupOfItsData) {
  const Json data = {{"models", {{{"name", kHostile}, {"evaluation", {{"verdict", "<b>"}}}}}}};
  const std::string page = report_page(data);
  const size_t json = page.find("<script type=\"application/json\"");
  const size_t end = page.find("</script>", json);
  ASSERT_NE(end, std::string::npos);
  const size_t begin = page.find('>', json) + 1;
  EXPECT_EQ(Json::parse(page.substr(begin, end - begin)), data);
  EXPECT_THAT(page, Not(HasSubstr("<b>")));
  EXPECT_THAT(page, Not(HasSubstr("<img")));
}

TEST(ReportText, NeedsAnEvaluation) {
  test::TemporaryFolder folder;
  Store store(folder.path() / "s.db");
  const Error none = test::error_of([&] { report_data(store, {}); });
  EXPECT_EQ(none.kind(), ErrorKind::kNotFound);
  put_made_evaluation(store, 1);
  EXPECT_EQ(report_data(store, {}).at("models").size(), 1u);
  EXPECT_THAT(test::error_of([&] { report_data(store, {"other", std::nullopt}); }).message(), HasSubstr("other"));
  EXPECT_THAT(test::error_of([&] { report_data(store, {"", 7}); }).message(), HasSubstr("run 7"));
}

}  // namespace
}  // namespace salient::pipeline

#include "pipeline/store_transfer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "common/file.h"
#include "common/hash.h"
#include "support/folder_bytes.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;
using test::TemporaryFolder;
using testing::HasSubstr;

// What one run of a job leaves: every table, and every reference from one to another.
int64_t fill(Store& store, const std::string& name, double value) {
  const int64_t run = store.begin_run(name, {{"bits", 4}}, "0.1.0");
  CalibrationRow calibration;
  calibration.path = "/calibration/" + name;
  calibration.samples = 7;
  calibration.seed = std::numeric_limits<uint64_t>::max();
  const int64_t calibration_id = store.put_calibration(calibration);
  const int64_t stage = store.begin_stage(run, "calibrate", "key of " + name, {{"seed", 1}});
  store.finish_stage(stage, "done", {{"paths", Json::object()}, {"values", {{"calibration_id", calibration_id}}}}, 0.1, "7 texts");
  ArtifactRecord artifact;
  artifact.run_id = run;
  artifact.name = name;
  artifact.path = "/artifacts/" + name;
  artifact.calibration_id = calibration_id;
  artifact.files = {{"model.safetensors", "abc"}};
  store.put_artifact(artifact);
  ResultRecord result;
  result.run_id = run;
  result.model_name = name;
  result.model_path = artifact.path;
  result.task = "arc";
  result.metric = "acc";
  result.value = value;
  result.n = 400;
  store.put_result(result);
  EvaluationRecord evaluation;
  evaluation.run_id = run;
  evaluation.model_name = name;
  evaluation.model_path = artifact.path;
  evaluation.evaluation = {{"figure", value}};
  store.put_evaluation(evaluation, {{0, 0, {{"question", "q"}}, {{"answer", "a"}}, std::nullopt},
                                    {0, 1, {{"question", "ä\n"}}, {{"answer", "b"}}, Json("base")}});
  store.finish_run(run, "done");
  return run;
}

class StoreTransferTest : public testing::Test {
 protected:
  fs::path path(const std::string& name) const { return folder_.path() / name; }
  // Ids and all: two stores with the same bytes hold the same.
  std::string rows_of(Store& store) const {
    const fs::path file = path("rows");
    export_store(store, file);
    return test::file_bytes(file);
  }
  std::string message_of_import(const std::string& text) const {
    test::write_text(path("changed"), text);
    Store store(path("into.db"));
    const std::string before = rows_of(store);
    const std::string message = test::message_of([&] { import_store(store, path("changed")); }, kind_);
    EXPECT_EQ(rows_of(store), before);
    return message;
  }

  TemporaryFolder folder_;
  ErrorKind kind_ = ErrorKind::kCorruption;
};

// It only reads: whoever writes keeps nobody from it, nor does it keep them.
TEST_F(StoreTransferTest, IsWrittenBesideAWriter) {
  Store store(path("main.db"));
  fill(store, "first", 0.5);
  const std::string before = rows_of(store);
  Store other(path("main.db"));
  Transaction writing(other);
  CalibrationRow calibration;
  calibration.path = "/calibration/other";
  other.put_calibration(calibration);
  EXPECT_EQ(rows_of(store), before);  // else it would wait for half a minute, and fail
  writing.commit();
  Transaction reading(store, TransactionKind::kRead);
  EXPECT_EQ(store.list_calibrations().size(), 2u);
  calibration.path = "/calibration/third";
  other.put_calibration(calibration);
  EXPECT_EQ(store.list_calibrations().size(), 2u);  // the moment of the first read
}

TEST_F(StoreTransferTest, CarriesAllTablesIntoAnotherStoreWithIdsOfItsOwn) {
  Store main(path("main.db"));
  fill(main, "first", 0.5);
  Store job(path("job.db"));
  fill(job, "second", 1.0 / 3);
  const TransferCounts counts = export_store(job, path("job.salient"));
  EXPECT_EQ(counts, (TransferCounts{{"runs", 1},
                                    {"calibrations", 1},
                                    {"artifacts", 1},
                                    {"stages", 1},
                                    {"results", 1},
                                    {"evaluations", 1},
                                    {"documents", 2}}));
  const ImportCounts taken = import_store(main, path("job.salient"));
  EXPECT_EQ(taken.added, counts);
  EXPECT_TRUE(taken.updated.empty());

  const auto run = main.find_run(2);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->name, "second");
  EXPECT_EQ(run->status, "done");
  EXPECT_EQ(run->config, (Json{{"bits", 4}}));
  EXPECT_EQ(run->started, job.find_run(1)->started);
  const ArtifactRecord artifact = main.list_artifacts({"second", "", 0}).at(0);
  EXPECT_EQ(artifact.run_id, 2);
  EXPECT_EQ(artifact.files, (Json{{"model.safetensors", "abc"}}));
  const std::vector<CalibrationRow> calibrations = main.list_calibrations();
  ASSERT_EQ(calibrations.size(), 2u);
  const CalibrationRow& calibration = calibrations[0].path == "/calibration/second" ? calibrations[0] : calibrations[1];
  EXPECT_EQ(calibration.seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(artifact.calibration_id, calibration.id);
  // An id inside a stage's values is one of this store, too: a later run skips the stage and uses it.
  EXPECT_EQ(main.find_done_stage("key of second")->outputs.at("values").at("calibration_id"), calibration.id);
  EXPECT_EQ(main.list_results({"second", "", "", 2, 0}).at(0).value, 1.0 / 3);
  const EvaluationRecord evaluation = main.list_evaluations({"second", "", 2, 0}).at(0);
  const std::vector<StoredDocument> documents = main.list_documents(evaluation.id);
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_FALSE(documents[0].base);
  EXPECT_EQ(documents[1].document.at("question"), "ä\n");
  EXPECT_EQ(documents[1].base, Json("base"));
  EXPECT_EQ(main.find_run(1)->name, "first");
}

TEST_F(StoreTransferTest, TakingAFileInAgainChangesNothing) {
  Store main(path("main.db"));
  Store job(path("job.db"));
  fill(job, "a", 0.5);
  fill(job, "b", std::nan(""));
  export_store(job, path("job.salient"));
  EXPECT_GT(import_store(main, path("job.salient")).changes(), 0);
  const std::string before = rows_of(main);
  const ImportCounts again = import_store(main, path("job.salient"));
  EXPECT_EQ(again.changes(), 0);
  EXPECT_EQ(again.unchanged.at("runs"), 2);
  EXPECT_EQ(rows_of(main), before);
  // Nor does what this store gives out itself.
  export_store(main, path("main.salient"));
  EXPECT_EQ(import_store(main, path("main.salient")).changes(), 0);
  EXPECT_EQ(import_store(job, path("main.salient")).changes(), 0);
}

// Two runs of one process in one second cannot be told apart but by their order.
TEST_F(StoreTransferTest, RunsThatLookAlikeStayTwo) {
  Store job(path("job.db"));
  int64_t first = 0;
  do {  // until both start in one second
    first = job.begin_run("same", Json::object(), "0.1.0");
    job.finish_run(first, "failed", "first");
    job.finish_run(job.begin_run("same", Json::object(), "0.1.0"), "done");
  } while (job.find_run(first)->started != job.find_run(first + 1)->started);
  export_store(job, path("job.salient"));
  Store main(path("main.db"));
  import_store(main, path("job.salient"));
  EXPECT_EQ(import_store(main, path("job.salient")).changes(), 0);
  ASSERT_EQ(main.list_runs().size(), static_cast<size_t>(first) + 1);
  EXPECT_EQ(main.find_run(first)->error, "first");
  EXPECT_EQ(main.find_run(first + 1)->status, "done");
}

TEST_F(StoreTransferTest, ARunThatWentOnIsBroughtUpToDate) {
  Store job(path("job.db"));
  const int64_t run = job.begin_run("demo", Json::object(), "0.1.0");
  const int64_t stage = job.begin_stage(run, "quantize", "k", Json::object());
  export_store(job, path("early.salient"));  // while it works
  job.finish_stage(stage, "done", {{"values", Json::object()}}, 2, "");
  job.finish_run(run, "done");
  export_store(job, path("late.salient"));

  Store main(path("main.db"));
  import_store(main, path("early.salient"));
  EXPECT_EQ(main.find_run(1)->status, "interrupted");
  EXPECT_FALSE(main.find_done_stage("k"));
  const ImportCounts late = import_store(main, path("late.salient"));
  EXPECT_EQ(late.updated, (TransferCounts{{"runs", 1}, {"stages", 1}}));
  EXPECT_EQ(main.find_run(1)->status, "done");
  EXPECT_TRUE(main.find_done_stage("k"));
  // The older file knows less than what is there.
  EXPECT_EQ(import_store(main, path("early.salient")).changes(), 0);
  EXPECT_EQ(main.find_run(1)->status, "done");
}

TEST_F(StoreTransferTest, TheNewerOfTwoFiguresStays) {
  Store job(path("job.db"));
  fill(job, "model", 0.25);
  export_store(job, path("job.salient"));
  // The file, as if it had been made in another year.
  const auto dated = [&](const std::string& year) {
    std::string text = read_text_file(path("job.salient"));
    const std::string this_year = utc_now().substr(0, 5);
    text = text.substr(0, text.rfind('\n', text.size() - 2) + 1);
    for (size_t at = text.find("\"created\":\"" + this_year); at != std::string::npos;
         at = text.find("\"created\":\"" + this_year, at))
      text.replace(at + 11, 5, year);
    const int64_t rows = std::count(text.begin(), text.end(), '\n') - 1;
    test::write_text(path(year), text + dump_json({{"rows", rows}, {"sha256", sha256_hex(text)}}) + "\n");
    return path(year);
  };
  Store main(path("main.db"));
  fill(main, "model", 0.75);
  import_store(main, dated("2001-"));
  EXPECT_EQ(main.list_results().at(0).value, 0.75);
  EXPECT_EQ(main.list_evaluations().at(0).evaluation.at("figure"), 0.75);
  import_store(main, dated("2999-"));
  ASSERT_EQ(main.list_results().size(), 1u);
  EXPECT_EQ(main.list_results().at(0).value, 0.25);
  EXPECT_EQ(main.list_evaluations().at(0).evaluation.at("figure"), 0.25);
  EXPECT_EQ(main.list_documents(main.list_evaluations().at(0).id).size(), 2u);
}

TEST_F(StoreTransferTest, OneRunAloneTakesItsCalibrationAlong) {
  Store job(path("job.db"));
  fill(job, "a", 1);
  const int64_t second = fill(job, "b", 2);
  export_store(job, path("b.salient"), {second});
  Store main(path("main.db"));
  import_store(main, path("b.salient"));
  ASSERT_EQ(main.list_runs().size(), 1u);
  EXPECT_EQ(main.list_runs()[0].name, "b");
  ASSERT_EQ(main.list_calibrations().size(), 1u);
  EXPECT_EQ(main.list_artifacts().at(0).calibration_id, main.list_calibrations()[0].id);
  EXPECT_EQ(main.list_documents(main.list_evaluations().at(0).id).size(), 2u);
  EXPECT_THAT(test::message_of([&] { export_store(job, path("c.salient"), {7}); }, ErrorKind::kNotFound), HasSubstr("run 7"));
  EXPECT_FALSE(fs::exists(path("c.salient")));
}

TEST_F(StoreTransferTest, AFileThatIsNotWholeChangesNothing) {
  Store job(path("job.db"));
  fill(job, "a", 1);
  export_store(job, path("job.salient"));
  const std::string text = test::file_bytes(path("job.salient"));
  EXPECT_THAT(message_of_import(""), HasSubstr("the file is empty"));
  EXPECT_THAT(message_of_import(text.substr(0, text.size() / 2)), HasSubstr("the last line has no end"));
  EXPECT_THAT(message_of_import(text.substr(0, text.rfind('\n', text.size() - 2) + 1)), HasSubstr("it is cut off"));
  std::string changed = text;
  changed.replace(changed.find("\"n\":400"), 7, "\"n\":401");
  EXPECT_THAT(message_of_import(changed), HasSubstr("SHA-256"));
  EXPECT_THAT(message_of_import("{\"a\":1}\n{\"rows\":0}\n"), HasSubstr("names no store"));
  const auto sealed = [](const std::string& lines, int64_t rows) {
    return lines + dump_json({{"rows", rows}, {"sha256", sha256_hex(lines)}}) + "\n";
  };
  EXPECT_THAT(message_of_import(sealed("{\"salient_store\":1,\"schema\":1}\n{\"table\":\"secrets\",\"row\":{}}\n", 1)),
              HasSubstr("no table 'secrets'"));
  EXPECT_THAT(message_of_import(sealed("{\"salient_store\":1,\"schema\":1}\n{\"table\":\"runs\",\"row\":{\"id\":1}}\n", 1)),
              HasSubstr("has no 'name'"));
  std::string orphan = text.substr(0, text.find('\n') + 1);
  for (size_t start = orphan.size(); start < text.size();) {
    const size_t end = text.find('\n', start) + 1;
    if (text.substr(start, end - start).find("\"table\":\"artifacts\"") != std::string::npos)
      orphan += text.substr(start, end - start);
    start = end;
  }
  EXPECT_THAT(message_of_import(sealed(orphan, 1)), HasSubstr("names runs 1, which is not in the file"));
  kind_ = ErrorKind::kUnsupported;
  EXPECT_THAT(message_of_import(sealed("{\"salient_store\":1,\"schema\":99,\"version\":\"9.9\"}\n", 0)),
              HasSubstr("written by salient 9.9"));
}

TEST_F(StoreTransferTest, TheCommandDoesBothAndSaysWhatIsWrong) {
  {
    Store job(path("job.db"));
    fill(job, "a", 1);
  }
  test::ProgramResult result = test::run_program({"store", "export", "job.salient", "--store", "job.db"}, folder_.path());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("1 runs"));
  result = test::run_program({"store", "import", "job.salient", "--store", "main.db", "--json"}, folder_.path());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(parse_json(result.out, "out").at(0).at("added").at("documents"), 2);
  result = test::run_program({"results", "--store", "main.db", "--json"}, folder_.path());
  EXPECT_EQ(parse_json(result.out, "out").at(0).at("value"), 1);
  for (const auto& [words, code] :
       std::vector<std::pair<std::vector<std::string>, int>>{{{"store"}, 2},
                                                             {{"store", "copy"}, 2},
                                                             {{"store", "export"}, 2},
                                                             {{"store", "export", "a", "b"}, 2},
                                                             {{"store", "import"}, 2},
                                                             {{"store", "import", "job.salient", "--run", "1"}, 2},
                                                             {{"store", "import", "nowhere.salient", "--store", "main.db"}, 3},
                                                             {{"store", "export", "a", "--store", "nowhere.db"}, 3}}) {
    EXPECT_EQ(test::run_program(words, folder_.path()).exit_code, code) << words.back();
  }
}

}  // namespace
}  // namespace salient::pipeline

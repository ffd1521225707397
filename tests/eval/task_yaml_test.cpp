// Task files: those of the program, those of others, and what is wrong with them.
#include "eval/task_yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "common/file.h"
#include "eval/bundled_tasks.h"
#include "eval/task_library.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::eval {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const TaskDefinition& bundled(const char* name) { return *TaskLibrary::bundled().find(name).tasks.at(0); }

TaskDefinition parse(const std::string& text) {
  return *read_task_file(ConfigNode::parse(text, "x.yaml"), "x.yaml",
                         [](const std::string&, const std::string&) { return IncludedFile(); })
              .tasks.at(0)
              ->definition;
}

TEST(BundledTasks, AreTheFilesOfTheProject) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(SALIENT_SOURCE_DIR "/configs/tasks")) {
    names.insert(entry.path().filename().string());
  }
  ASSERT_EQ(bundled_task_files().size(), names.size());
  for (const BundledFile& file : bundled_task_files()) {
    EXPECT_EQ(file.text, read_text_file(std::string(SALIENT_SOURCE_DIR "/configs/tasks/") + std::string(file.name)));
  }
}

TEST(BundledTasks, SayWhatTheHarnessSays) {
  const TaskDefinition& easy = bundled("arc_easy");
  EXPECT_EQ(easy.output_type, OutputType::kMultipleChoice);
  EXPECT_EQ(easy.doc_to_text.text, "Question: {{question}}\nAnswer:");
  EXPECT_EQ(easy.target_delimiter, " ");
  EXPECT_EQ(easy.fewshot_delimiter, "\n\n");
  EXPECT_EQ(easy.shots_split(), "train");
  EXPECT_TRUE(easy.metrics.at(0).headline);
  EXPECT_FALSE(easy.metrics.at(1).headline);
  EXPECT_EQ(bundled("arc_challenge").dataset_name, "ARC-Challenge");
  EXPECT_EQ(bundled("arc_challenge").doc_to_text.text, easy.doc_to_text.text);  // by its include
  const TaskDefinition& gsm8k = bundled("gsm8k");
  EXPECT_EQ(gsm8k.num_fewshot, 5);
  EXPECT_EQ(gsm8k.until, (std::vector<std::string>{"Question:", "</s>", "<|im_end|>"}));
  EXPECT_EQ(gsm8k.max_new_tokens, 256);
  EXPECT_EQ(bundled("openmath").num_fewshot, 0);
  EXPECT_EQ(bundled("gsm8k_cot").fewshot.samples.size(), 8u);
  EXPECT_EQ(bundled("gsm8k_cot").shots_split(), "");
  EXPECT_EQ(bundled("hellaswag").evaluated_split(), "validation");
  EXPECT_EQ(bundled("truthfulqa_mc2").doc_to_target.constant, 0);
  EXPECT_EQ(bundled("squadv2").name, "squad_v2");
  EXPECT_EQ(bundled("ppl").output_type, OutputType::kTokenWindows);
}

TEST(BundledTasks, MmluHasItsSubjects) {
  const TaskSelection mmlu = TaskLibrary::bundled().find("mmlu");
  EXPECT_EQ(mmlu.tasks.size(), 57u);
  ASSERT_EQ(mmlu.groups.size(), 5u);
  EXPECT_EQ(mmlu.groups.back().name, "mmlu");
  EXPECT_EQ(mmlu.groups.back().tasks.size(), 57u);
  size_t members = 0;
  for (size_t i = 0; i < 4; ++i) members += mmlu.groups[i].tasks.size();
  EXPECT_EQ(members, 57u);
  const TaskDefinition& physics = bundled("mmlu_college_physics");
  EXPECT_EQ(physics.description.text, "The following are multiple choice questions (with answers) about college physics.\n\n");
  EXPECT_EQ(physics.fewshot.sampler, "first_n");
  EXPECT_EQ(physics.row_filter.at("subject"), "college_physics");
  EXPECT_EQ(TaskLibrary::bundled().find("mmlu_stem").tasks.size(), 19u);
  EXPECT_EQ(TaskLibrary::bundled().find("mmlu_stem_tasks").groups.size(), 0u);  // a tag has no figures of its own
}

TEST(TaskLibraryTest, UnknownNamesGetTheNearest) {
  const Error error = test::error_of([] { TaskLibrary::bundled().find("arc_eazy"); }, ErrorKind::kInvalidArgument);
  EXPECT_THAT(error.message(), HasSubstr("did you mean 'arc_easy'"));
  EXPECT_THAT(error.hint(), HasSubstr("YAML"));
}

TEST(TaskLibraryTest, TakesTasksOfFoldersAndFiles) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder.path() / "deep");
  write_file(
      folder.path() / "deep/_base",
      "output_type: multiple_choice\ntest_split: test\ndoc_to_text: a\ndoc_to_target: 0\ndoc_to_choice: [x, y]\nnum_fewshot: 3\n");
  write_file(folder.path() / "deep/mine.yaml", "include: _base\ntask: mine\nnum_fewshot: null\n");
  write_file(folder.path() / "deep/other.yaml", "include: [_base]\ntask: other\ntag: [mine_all]\n");
  write_file(folder.path() / "group.yaml",
             "group: both\ntask: [mine, {include: deep/_base, task: inside, doc_to_choice: {a: v, b: w}}]\naggregate_metric_list: "
             "{metric: acc, weight_by_size: false}\n");
  write_file(folder.path() / "arc.yaml", "include: arc_easy.yaml\ntask: arc\nnum_fewshot: 7\n");  // of the bundled ones
  TaskLibrary library = TaskLibrary::bundled();
  library.add_folder(folder.path());
  EXPECT_FALSE(library.find("mine").tasks[0]->num_fewshot) << "null takes the included value away";
  EXPECT_EQ(library.find("other").tasks[0]->num_fewshot, 3);
  EXPECT_EQ(library.find("mine_all").tasks[0]->name, "other");
  const TaskSelection both = library.find("both");
  ASSERT_EQ(both.tasks.size(), 2u);
  EXPECT_EQ(both.tasks[1]->doc_to_choice.constant, (Json{"v", "w"}));
  EXPECT_FALSE(both.groups.at(0).metrics.at(0).weight_by_size);
  EXPECT_EQ(library.find("arc").tasks[0]->num_fewshot, 7);
  EXPECT_EQ(library.find("arc").tasks[0]->doc_to_text.text, bundled("arc_easy").doc_to_text.text);
  EXPECT_FALSE(TaskLibrary::bundled().find("arc").tasks[0]->num_fewshot);
  EXPECT_EQ(TaskLibrary::bundled().find((folder.path() / "deep/other.yaml").string()).name, "other");
  EXPECT_EQ(test::error_of([&] { library.add_folder(folder.path() / "absent"); }).kind(), ErrorKind::kNotFound);
}

// A task of one's own file.
std::string plain_task(const std::string& name) {
  return "task: " + name +
         "\noutput_type: multiple_choice\ntest_split: test\ndoc_to_text: a\ndoc_to_target: 0\ndoc_to_choice: [x, y]\n";
}

TEST(TaskLibraryTest, AFileIsWhatItHoldsWhateverItsName) {
  const test::TemporaryFolder folder;
  const auto found = [&](const std::string& text) {
    write_file(folder.path() / "t.yaml", text);
    return TaskLibrary::bundled().find((folder.path() / "t.yaml").string());
  };
  EXPECT_EQ(found(plain_task("t.yaml")).name, "t.yaml");
  EXPECT_EQ(found(plain_task("arc_easy")).tasks.at(0)->dataset_path, "");
  const TaskSelection group = found("group: arc_easy\ntask: [boolq, piqa]\n");
  ASSERT_EQ(group.groups.size(), 1u);
  EXPECT_EQ(group.groups[0].tasks, (std::vector<std::string>{"boolq", "piqa"}));
  EXPECT_EQ(found("group: arc_easy\ntask: arc_easy\n").tasks.at(0)->name, "arc_easy");
  for (const char* wrong : {"group: t.yaml\ntask: t.yaml\n", "group: g\ntask: []\n", "group: g\n"})
    EXPECT_EQ(test::error_of([&] { found(wrong); }).kind(), ErrorKind::kInvalidArgument) << wrong;
}

// {task: x, num_fewshot: 5} in a group: as lm_eval/tasks/_factory.py of lm-evaluation-harness 0.4.13 lays keys over one another.
TEST(TaskLibraryTest, GroupsLayKeysOverTheirMembers) {
  const test::TemporaryFolder folder;
  const auto write = [&](const std::string& name, const std::string& text) { write_file(folder.path() / name, text); };
  write("shared", "num_fewshot: 4\ntarget_delimiter: '|'\n");
  write("suite.yaml",
        "group: suite\ninclude: shared\ntask:\n  - arc_easy\n  - {task: arc_challenge, num_fewshot: 5}\n  - group: inner\n    "
        "fewshot_delimiter: '-'\n    task:\n"
        "      - boolq\n      - {task: piqa, num_fewshot: 1}\n      - {task: mine, num_fewshot: 2, output_type: multiple_choice, "
        "test_split: test, doc_to_text: a, "
        "doc_to_target: 0, doc_to_choice: [x, y]}\n");
  write("outer.yaml", "group: outer\ntask:\n  - {group: suite, num_fewshot: 9, target_delimiter: '+'}\n  - winogrande\n");
  TaskLibrary library = TaskLibrary::bundled();
  library.add_folder(folder.path());
  const auto shots = [](const TaskSelection& selection) {
    std::map<std::string, std::string> out;
    for (const auto& task : selection.tasks) {
      out[task->name] = (task->num_fewshot ? std::to_string(*task->num_fewshot) : "none") + task->target_delimiter +
                        (task->fewshot_delimiter == "-" ? "-" : "");
    }
    return out;
  };
  using Map = std::map<std::string, std::string>;
  EXPECT_EQ(shots(library.find("suite")),
            (Map{{"arc_easy", "4|"}, {"arc_challenge", "5|"}, {"boolq", "4|-"}, {"piqa", "1|-"}, {"mine", "2|-"}}));
  EXPECT_EQ(shots(library.find("outer")), (Map{{"arc_easy", "9+"},
                                               {"arc_challenge", "5+"},
                                               {"boolq", "9+-"},
                                               {"piqa", "1+-"},
                                               {"mine", "2+-"},
                                               {"winogrande", "none "}}));
  EXPECT_EQ(shots(TaskLibrary::bundled().find((folder.path() / "suite.yaml").string())), shots(library.find("suite")));
  EXPECT_EQ(library.find("suite").groups.back().tasks.size(), 5u);
  // The tasks themselves stay what they are, and their version with them.
  EXPECT_FALSE(library.find("arc_easy").tasks[0]->num_fewshot);
  EXPECT_EQ(library.find("suite").tasks[0]->version, library.find("arc_easy").tasks[0]->version);
  EXPECT_NE(library.find("suite").tasks[0]->sha256, library.find("arc_easy").tasks[0]->sha256);

  const auto refused = [&](const std::string& text) {
    write("wrong.yaml", text);
    return test::error_of([&] { TaskLibrary::bundled().find((folder.path() / "wrong.yaml").string()); },
                          ErrorKind::kInvalidArgument)
        .message();
  };
  EXPECT_THAT(refused("group: g\ntask: [arc_easy, {task: arc_easy, num_fewshot: 5}]\n"),
              HasSubstr("task arc_easy is reached twice"));
  EXPECT_THAT(refused("group: g\ntask: [{task: arc_easy, num_fewshoot: 5}]\n"), HasSubstr("wrong.yaml:2:25: unknown key"));
  EXPECT_THAT(refused("group: g\ntask: [{num_fewshot: 5}]\n"), HasSubstr("task or group"));
  EXPECT_THAT(refused("group: g\nnum_fewshoot: 5\ntask: [arc_easy]\n"), HasSubstr("num_fewshot"));
}

// What a group's file holds inside does not take a known name away from what has it.
TEST(TaskLibraryTest, MembersNamedLikeKnownTasksStayInside) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "g.yaml",
             "group: g\ntask:\n  - {task: arc_easy, output_type: multiple_choice, test_split: mine, doc_to_text: a, doc_to_target: "
             "0, doc_to_choice: [x, y]}\n"
             "  - {group: boolq, task: [piqa]}\n");
  TaskLibrary library = TaskLibrary::bundled();
  library.add_folder(folder.path());
  EXPECT_EQ(library.find("arc_easy").tasks.at(0)->test_split, "test");
  EXPECT_TRUE(library.find("boolq").groups.empty());
  const TaskSelection group = library.find("g");
  ASSERT_EQ(group.tasks.size(), 2u);
  EXPECT_EQ(group.tasks[0]->test_split, "mine");
  EXPECT_EQ(group.tasks[1]->name, "piqa");
  ASSERT_EQ(group.groups.size(), 2u);
  EXPECT_EQ(group.groups[0].name, "boolq");
  EXPECT_EQ(group.groups[1].tasks, (std::vector<std::string>{"arc_easy", "piqa"}));
}

TEST(TaskLibraryTest, GroupsInSeveralGroupsAreThereOnce) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "leaf.yaml", plain_task("leaf"));
  write_file(folder.path() / "g0.yaml", "group: g0\ntask: [leaf]\n");
  for (int i = 1; i <= 40; ++i) {  // 2^40 ways to the leaf
    const std::string name = "g" + std::to_string(i);
    const std::string below = "g" + std::to_string(i - 1);
    write_file(folder.path() / (name + ".yaml"), "group: " + name + "\ntask: [" + below + ", " + below + "]\n");
  }
  TaskLibrary library = TaskLibrary::bundled();
  library.add_folder(folder.path());
  const TaskSelection all = library.find("g40");
  EXPECT_EQ(all.tasks.size(), 1u);
  ASSERT_EQ(all.groups.size(), 41u);
  EXPECT_EQ(all.groups.front().name, "g0");
  EXPECT_EQ(all.groups.back().tasks, std::vector<std::string>{"leaf"});
}

TEST(TaskLibraryTest, IncludesEndAndAreTheUsersOwn) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder.path() / "configs/tasks/deep");
  const fs::path tasks = folder.path() / "configs/tasks";
  const auto find = [](const fs::path& file) { return TaskLibrary::bundled().find(file.string()); };
  // The same name in successive folders.
  write_file(folder.path() / "configs/_default.yaml", plain_task("base"));
  write_file(tasks / "_default.yaml", "include: ../_default.yaml\nnum_fewshot: 2\n");
  write_file(tasks / "deep/mine.yaml", "include: ../_default.yaml\ntask: mine\n");
  EXPECT_EQ(find(tasks / "deep/mine.yaml").tasks.at(0)->num_fewshot, 2);
  // A folder of the user's that is called as that of the bundled files.
  write_file(tasks / "arc_easy.yaml", plain_task("base"));
  write_file(tasks / "own.yaml", "include: arc_easy.yaml\ntask: own\n");
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  const TaskSelection own = find("configs/tasks/own.yaml");
  fs::current_path(before);
  EXPECT_EQ(own.tasks.at(0)->doc_to_text.text, "a");
  // Circles, written in two ways, and trees.
  write_file(tasks / "circle.yaml", "include: deep/back.yaml\ntask: circle\n");
  write_file(tasks / "deep/back.yaml", "include: ../deep/../circle.yaml\n");
  EXPECT_THAT(test::error_of([&] { find(tasks / "circle.yaml"); }, ErrorKind::kInvalidArgument).message(),
              HasSubstr("includes itself"));
  write_file(tasks / "i0", plain_task("tree"));
  for (int i = 1; i <= 40; ++i) {
    const std::string below = "i" + std::to_string(i - 1);
    write_file(tasks / ("i" + std::to_string(i)), "include: [" + below + ", " + below + "]\n");
  }
  write_file(tasks / "tree.yaml", "include: i40\ntask: tree\n");
  EXPECT_THAT(test::error_of([&] { find(tasks / "tree.yaml"); }, ErrorKind::kInvalidArgument).message(), HasSubstr("100 included"));
}

TEST(TaskYaml, SaysWhatIsWrongAndWhere) {
  struct Case {
    std::string lines;
    ErrorKind kind;
    std::string text;
  };
  const std::string base = "task: t\ntest_split: test\ndoc_to_text: a\ndoc_to_target: b\n";
  const Case cases[] = {
      {"doc_to_txt: x\n", ErrorKind::kInvalidArgument, "did you mean 'doc_to_text'"},
      {"output_type: multiple_choise\n", ErrorKind::kInvalidArgument, "did you mean 'multiple_choice'"},
      {"output_type: multiple_choice\n", ErrorKind::kInvalidArgument, "doc_to_choice"},
      {"process_docs: !function utils.process_docs\n", ErrorKind::kInvalidArgument, "utils.process_docs"},
      {"metric_list: [{metric: blue}]\n", ErrorKind::kInvalidArgument, "exact_match"},
      {"metric_list: [{metric: bleu}]\n", ErrorKind::kUnsupported, "sacrebleu"},
      {"metric_list: [{metric: rouge, hf_evaluate: true}]\n", ErrorKind::kUnsupported, "package evaluate"},
      {"metric_list: [{metric: exact_match, aggregation: best}]\n", ErrorKind::kInvalidArgument, "weighted_perplexity"},
      {"filter_list: [{name: f, filter: [{function: regexp}]}]\n", ErrorKind::kInvalidArgument, "'regex'"},
      {"filter_list: [{name: f, filter: [null]}]\n", ErrorKind::kInvalidArgument, "function"},
      {"process_results: !function wikitext.process_results\n", ErrorKind::kInvalidArgument, "loglikelihood_rolling"},
      {"process_results: !function squadv2.process_results\n"
       "metric_list: [{metric: f1, aggregation: !function squadv2.best_threshold}]\n",
       ErrorKind::kInvalidArgument, "best_f1"},
      {"doc_to_image: image\n", ErrorKind::kUnsupported, "doc_to_image"},
      {"num_fewshot: -1\n", ErrorKind::kInvalidArgument, "num_fewshot"},
      {"fewshot_config: {sampler: balanced}\n", ErrorKind::kInvalidArgument, "first_n"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.lines);
    const Error error = test::error_of([&] { parse(base + c.lines); }, c.kind);
    EXPECT_THAT(error.message(), HasSubstr(c.text));
    EXPECT_THAT(error.message(), HasSubstr("x.yaml:"));
  }
  EXPECT_THAT(test::error_of([] { parse("task: t\ntest_split: test\ndoc_to_text: a\n"); }).message(), HasSubstr("doc_to_target"));
}

TEST(TaskYaml, SamplingFollowsTheHarness) {
  const auto sampling = [](const std::string& keys) {
    const TaskDefinition task =
        parse("task: t\ntest_split: test\ndoc_to_text: a\ndoc_to_target: b\ngeneration_kwargs: {" + keys + "}\n");
    return std::tuple(task.temperature, task.top_p, task.top_k);
  };
  EXPECT_EQ(sampling("do_sample: false, temperature: 0.7"), std::tuple(0.0, 1.0, 0));
  EXPECT_EQ(sampling("temperature: 0.0"), std::tuple(0.0, 1.0, 0));
  EXPECT_EQ(sampling("temperature: 0.2"), std::tuple(0.2, 1.0, 50));
  EXPECT_EQ(sampling("do_sample: true"), std::tuple(1.0, 1.0, 50));
  EXPECT_EQ(sampling("do_sample: true, temperature: 0.5, top_p: 0.9, top_k: 0"), std::tuple(0.5, 0.9, 0));
}

TEST(TaskYaml, DefaultsAreTheHarness) {
  const TaskDefinition task = parse("task: t\ntest_split: test\ndoc_to_text: a\ndoc_to_target: b\nfewshot_delimiter: '##'\n");
  EXPECT_EQ(task.output_type, OutputType::kGenerateUntil);
  EXPECT_EQ(task.until, std::vector<std::string>{"##"});
  ASSERT_EQ(task.metrics.size(), 1u);
  EXPECT_EQ(task.metrics[0].name, "exact_match");
  ASSERT_EQ(task.filters.size(), 1u);
  EXPECT_EQ(task.filters[0].name, "none");
  EXPECT_EQ(task.fewshot.fewshot_delimiter, "##");
}

}  // namespace
}  // namespace salient::eval

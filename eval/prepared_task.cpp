#include "eval/prepared_task.h"

#include <algorithm>

#include "common/error.h"
#include "eval/few_shot.h"

namespace salient::eval {
namespace {

std::string place(const TaskRows& rows, size_t i) { return fmt::format("{}:{}", rows.file.string(), rows.line_numbers[i]); }

// Rows of examples, of a split or of the YAML file itself.
TaskRows load_shots(const TaskDefinition& task, const TaskRequest& request, const TaskRows& evaluated) {
  const std::string& split = task.shots_split();
  if (split.empty()) {
    TaskRows rows{task.origin, task.sha256, {}, {}};
    for (const Json& sample : task.fewshot.samples) {
      rows.rows.push_back(sample);
      rows.line_numbers.push_back(static_cast<int64_t>(rows.rows.size()));
    }
    return rows;
  }
  const DataSource source = source_of(request, task.name);
  if (split == task.evaluated_split() && find_split(task, split, source) == evaluated.file) return evaluated;
  return load_split(task, split, source);
}

}  // namespace

int64_t shots_of(const TaskDefinition& task, const std::optional<int64_t>& wanted) {
  if (task.num_fewshot == 0) return 0;
  return wanted ? *wanted : task.num_fewshot.value_or(0);
}

PreparedTask prepare_task(const LanguageModel& model, const TaskDefinition& task, const TaskRequest& request,
                          const EvaluationOptions& options) {
  PreparedTask out;
  out.data = load_split(task, task.evaluated_split(), source_of(request, task.name));
  const size_t count =
      request.limit > 0 ? std::min(out.data.rows.size(), static_cast<size_t>(request.limit)) : out.data.rows.size();
  const int64_t shots = shots_of(task, request.num_fewshot);
  const PromptBuilder builder(model, task, {options.apply_chat_template, options.fewshot_as_multiturn, options.system_instruction});
  out.choice_delimiter = builder.choice_delimiter();
  out.settings = {{"limit", request.limit},       {"documents", count},
                  {"num_fewshot", shots},         {"chat_template", options.apply_chat_template},
                  {"task_version", task.version}, {"task_sha256", task.sha256},
                  {"softmax_dtype", "float32"}};
  if (options.apply_chat_template) out.settings["chat_template_sha256"] = model.chat_template->sha256();
  if (!options.system_instruction.empty()) out.settings["system_instruction"] = options.system_instruction;

  TaskRows pool;
  if (shots > 0) {
    pool = load_shots(task, request, out.data);
    out.settings["fewshot_sha256"] = pool.sha256;
    out.settings["fewshot_seed"] = options.fewshot_seed;
    if (options.apply_chat_template) out.settings["fewshot_as_multiturn"] = options.fewshot_as_multiturn;
  }
  FewshotSampler sampler(task, pool.rows, options.fewshot_seed);
  const auto draw = [&](const Json& row) {
    try {
      return sampler.draw(static_cast<size_t>(shots), row);
    } catch (Error& error) {
      error.add_context(fmt::format("task {}: examples of {}", task.name, pool.file.string()));
      throw error.with_hint("ask for fewer examples, --num-fewshot N, or give a file with more rows");
    }
  };
  for (size_t i = 0; i < count; ++i) {
    const Json& row = out.data.rows[i];
    const Document& document = out.documents.emplace_back(make_document(row, place(out.data, i)));
    std::vector<Document> drawn;
    for (const size_t index : draw(row)) drawn.push_back(make_document(pool.rows[index], place(pool, index)));
    const Json question = builder.format().text(document);
    if (i == 0) out.multiple_inputs = question.is_number_integer();
    out.questions.push_back(question.is_string() ? question.get<std::string>() : "");
    out.prompts.push_back(builder.build(document, drawn, out.multiple_inputs));
    out.targets.push_back(builder.format().target(document));
  }
  return out;
}

}  // namespace salient::eval

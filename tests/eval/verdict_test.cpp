// What is said about made-up evaluations.
#include "eval/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace salient::eval {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

// A share of right answers of 400 documents.
TaskResult task(const char* name, double base, double value, double half_width, double p, double detectable) {
  MetricResult metric{
      .metric = "acc", .headline = true, .aggregation = "mean", .value = {value, 0.02}, .n = 400, .chance = 0.25, .base = {}};
  BaseComparison comparison;
  comparison.base_value = base;
  comparison.difference = {value - base, half_width / 2};
  comparison.difference_95 = Interval{value - base - half_width, value - base + half_width};
  comparison.retention = Estimate{value / base, 0.01};
  comparison.p_value = p;
  comparison.detectable_difference = detectable;
  metric.base = comparison;
  TaskResult result;
  result.task = name;
  result.metrics = {metric};
  return result;
}

Evaluation evaluation_of(std::vector<TaskResult> tasks) {
  Evaluation out;
  out.model.model = "quantized";
  out.model.tasks = std::move(tasks);
  out.base.emplace();
  out.base->model = "original";
  return out;
}

TEST(Verdict, SaysWhereTheLossIs) {
  const Evaluation evaluation = evaluation_of(
      {task("arc", 0.5, 0.5, 0.01, 1, 0.02), task("piqa", 0.7, 0.69, 0.015, 0.2, 0.03), task("boolq", 0.8, 0.801, 0.01, 0.9, 0.02),
       task("winogrande", 0.6, 0.6, 0.01, 1, 0.02), task("gsm8k", 0.4, 0.379, 0.009, 0.0001, 0.01)});
  EXPECT_EQ(
      verdict(evaluation),
      "quantized against original: no measurable loss on 4 of 5 tasks; measurable loss: gsm8k -2.1 ± 0.9 points; 98.7 % of the "
      "scores kept on average.");
  const auto lines = verdict_lines(evaluation);
  ASSERT_EQ(lines.size(), 5U);
  EXPECT_EQ(lines[1],
            "piqa: acc 0.7000 -> 0.6900, -1.0 ± 1.5 points, p = 0.2: no measurable loss; one above 3.0 points would show");
  EXPECT_EQ(lines[4], "gsm8k: acc 0.4000 -> 0.3790, -2.1 ± 0.9 points, p < 0.001: measurable loss");
}

TEST(Verdict, GainsAreSaidToo) {
  EXPECT_THAT(verdict(evaluation_of({task("arc", 0.5, 0.53, 0.01, 0.001, 0.01), task("piqa", 0.7, 0.7, 0.01, 1, 0.02)})),
              AllOf(HasSubstr("no measurable loss on 2 of 2 tasks"), HasSubstr("measurable gain: arc +3.0 ± 1.0 points")));
}

TEST(Verdict, ManyTasksNeedStrongerEvidence) {
  const auto loss = [](double p) { return task("hellaswag", 0.5, 0.48, 0.018, p, 0.03); };
  EXPECT_THAT(verdict(evaluation_of({loss(0.03)})), HasSubstr("measurable loss: hellaswag"));
  std::vector<TaskResult> tasks = {task("a", 0.5, 0.5, 0.01, 1, 0.02), task("b", 0.5, 0.5, 0.01, 1, 0.02), loss(0.03)};
  EXPECT_THAT(verdict(evaluation_of(tasks)), HasSubstr("no measurable loss on 3 of 3 tasks"));
  tasks.back() = loss(0.016);  // times 3 is below 5 %
  EXPECT_THAT(verdict(evaluation_of(tasks)), HasSubstr("measurable loss: hellaswag"));
}

TEST(Verdict, FewDocumentsAreNoAllClear) {
  TaskResult small = task("openmath", 0.4, 0.35, 0.1, 0.5, 0.12);
  small.metrics[0].n = 20;
  const std::string said = verdict(evaluation_of({small, task("arc", 0.5, 0.5, 0.01, 1, 0.02)}));
  EXPECT_THAT(said, AllOf(HasSubstr("no measurable loss on 1 of 2 tasks"),
                          HasSubstr("too few documents to tell: openmath (20 documents can only show losses above 12.0 points)")));
  EXPECT_THAT(verdict(evaluation_of({small})), Not(HasSubstr("no measurable loss")));
}

TEST(Verdict, FiguresInPercentAndPerplexities) {
  TaskResult squad = task("squad_v2", 50, 47, 1.5, 0.001, 2);
  squad.metrics[0].unit = Unit::kPercent;
  TaskResult wikitext = task("wikitext", 20, 20.5, 0.1, 0.001, 0.2);
  wikitext.metrics[0].unit = Unit::kNone;
  wikitext.metrics[0].higher_is_better = false;
  wikitext.metrics[0].headline = false;
  EXPECT_THAT(verdict(evaluation_of({squad, wikitext})),
              HasSubstr("measurable loss: squad_v2 -3.0 ± 1.5 points, wikitext +2.5 ± 0.5 %;"));
}

TEST(Verdict, MembersOfAGroupAreNotCounted) {
  TaskResult member = task("mmlu_anatomy", 0.5, 0.3, 0.01, 0.0001, 0.01);
  member.metrics[0].headline = false;
  const Evaluation evaluation = evaluation_of({member, task("mmlu", 0.5, 0.5, 0.01, 1, 0.02)});
  EXPECT_THAT(verdict(evaluation), HasSubstr("no measurable loss on 1 of 1 task;"));
  EXPECT_THAT(verdict_lines(evaluation)[0], EndsWith("p < 0.001"));
}

TEST(Verdict, BrokenFirstAndFlagsLast) {
  TaskResult broken;
  broken.task = "gsm8k";
  broken.flags = {{FlagKind::kNanLogits, 1, std::nullopt, "NaN at gsm8k.jsonl:3"}};
  TaskResult looping = task("openmath", 0.5, 0.5, 0.01, 1, 0.02);
  looping.flags = {{FlagKind::kRepetition, 0.4, 2, "40 % loop"}, {FlagKind::kUnparsed, 0.6, 2, "60 %"}};
  const Evaluation evaluation = evaluation_of({looping, broken});
  EXPECT_THAT(verdict(evaluation),
              AllOf(HasSubstr("original: broken, NaN or infinite logits and no figures: gsm8k; no measurable loss on 1 of 1 task;"),
                    EndsWith("look at openmath (repetition, unparsed).")));
  EXPECT_THAT(verdict_lines(evaluation)[0], EndsWith("[repetition, unparsed]"));
  EXPECT_EQ(verdict_lines(evaluation)[1], "gsm8k: broken: NaN at gsm8k.jsonl:3");
}

TEST(Verdict, OfTextAndOfOneModel) {
  TaskResult text;
  text.task = "perplexity";
  text.settings = {{"windows", 20}};
  MetricResult perplexity{
      .metric = "perplexity", .unit = Unit::kNone, .higher_is_better = false, .value = {10.1, 0.1}, .chance = {}, .base = {}};
  Evaluation alone = evaluation_of({task("arc", 0.5, 0.5, 0.01, 1, 0.02), text});
  alone.model.tasks[1].metrics = {perplexity};
  alone.base.reset();
  EXPECT_EQ(verdict(alone), "quantized: arc acc 0.5000; perplexity 10.1000.");
  perplexity.base = BaseComparison{.base_value = 10, .difference = {0.1, 0.01}, .difference_95 = Interval{0.08, 0.12}};
  text.metrics = {perplexity,
                  {.metric = "kl_divergence", .unit = Unit::kNats, .value = {0.0123, 0.001}, .chance = {}, .base = {}},
                  {.metric = "top1_agreement", .value = {0.95, 0.01}, .chance = {}, .base = {}}};
  EXPECT_THAT(verdict_lines(evaluation_of({text})),
              ElementsAre("perplexity: perplexity +1.00 ± 0.20 %, mean KL 0.0123 nats, the same top token at 95.0 % of positions"));
  EXPECT_EQ(verdict(Evaluation{}), ": nothing was measured.");
}

}  // namespace
}  // namespace salient::eval

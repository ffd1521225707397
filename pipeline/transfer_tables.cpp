#include "pipeline/transfer_tables.h"

namespace salient::pipeline {
namespace {

using enum ColumnKind;

constexpr TransferColumn kRuns[] = {
    {"name", kText, true},    {"config", kText},     {"config_hash", kText, true}, {"version", kText},
    {"started", kText, true}, {"finished", kText},   {"status", kStatus},          {"error", kText},
    {"pid", kInteger, true},  {"host", kText, true},
};
constexpr TransferColumn kCalibrations[] = {
    {"path", kText, true},  {"dataset", kText},       {"rows", kInteger},   {"samples", kInteger}, {"seed", kInteger},
    {"source_hash", kText}, {"template_hash", kText}, {"tokens", kInteger}, {"record", kText},     {"created", kText},
};
constexpr TransferColumn kArtifacts[] = {
    {"run_id", kRun},           {"name", kText},
    {"path", kText, true},      {"format", kText},
    {"method", kText},          {"spec", kText},
    {"base_model_path", kText}, {"base_model_hash", kText},
    {"dataset", kText},         {"calibration_id", kCalibration},
    {"bytes", kInteger},        {"files", kText},
    {"metadata", kText},        {"created", kText},
};
constexpr TransferColumn kStages[] = {
    {"run_id", kRun, true}, {"name", kText, true}, {"key", kText},      {"inputs", kText},  {"outputs", kStageOutputs},
    {"status", kStatus},    {"started", kText},    {"finished", kText}, {"seconds", kReal}, {"message", kText},
};
constexpr TransferColumn kResults[] = {
    {"run_id", kRun},
    {"model_name", kText},
    {"model_path", kText, true},
    {"model_hash", kText, true},
    {"task", kText, true},
    {"metric", kText, true},
    {"value", kReal},
    {"standard_error", kReal},
    {"n", kInteger},
    {"config", kText, true},
    {"data_hash", kText, true},
    {"protocol", kText, true},
    {"compared_with", kText, true},
    {"created", kText},
};
constexpr TransferColumn kEvaluations[] = {
    {"run_id", kRun},          {"model_name", kText},          {"model_path", kText, true}, {"model_hash", kText, true},
    {"model_bytes", kInteger}, {"base_name", kText},           {"base_path", kText, true},  {"base_hash", kText, true},
    {"base_bytes", kInteger},  {"settings_hash", kText, true}, {"evaluation", kText},       {"created", kText},
};
constexpr TransferColumn kDocuments[] = {
    {"evaluation_id", kEvaluation, true},
    {"task", kInteger, true},
    {"position", kInteger, true},
    {"document", kText},
    {"model", kText},
    {"base", kText},
};

constexpr TransferTable kTables[] = {
    {"runs", kRuns, TransferRule::kInterrupted},         {"calibrations", kCalibrations, TransferRule::kNewer},
    {"artifacts", kArtifacts, TransferRule::kNewer},     {"stages", kStages, TransferRule::kInterrupted},
    {"results", kResults, TransferRule::kNewer},         {"evaluations", kEvaluations, TransferRule::kNewer},
    {"documents", kDocuments, TransferRule::kWithOwner},
};

}  // namespace

std::span<const TransferTable> transfer_tables() { return kTables; }

}  // namespace salient::pipeline

// The tables of the store as its transfer sees them: columns, keys, and what refers to what.
#pragma once

#include <span>
#include <string_view>

namespace salient::pipeline {

enum class ColumnKind {
  kText,
  kInteger,
  kReal,          // NULL stands for no number
  kRun,           // id of a run, or NULL
  kCalibration,   // id of a calibration, or NULL
  kEvaluation,    // id of an evaluation
  kStatus,        // "running" goes out as "interrupted"
  kStageOutputs,  // JSON in which values.calibration_id is the id of a calibration
};

struct TransferColumn {
  std::string_view name;
  ColumnKind kind = ColumnKind::kText;
  bool key = false;
};

// How a row that is there already gives way to one of the file.
enum class TransferRule {
  kInterrupted,  // one that reads "interrupted"; others have come to their end
  kNewer,        // one whose `created` is not later
  kWithOwner,    // documents: with their evaluation
};

struct TransferTable {
  std::string_view name;
  std::span<const TransferColumn> columns;  // without `id`
  TransferRule rule;
};

// In an order in which what a row refers to comes before it.
std::span<const TransferTable> transfer_tables();

}  // namespace salient::pipeline

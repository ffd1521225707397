// The schema of the store, as the steps that lead to it.
#pragma once

#include <span>

namespace salient::pipeline {

struct Migration {
  int version;      // PRAGMA user_version once it is applied; consecutive from 1
  const char* sql;  // run in one transaction
};

// In order. A step that has been released is never changed; a new one is added behind it.
std::span<const Migration> migrations();
int newest_schema_version();

}  // namespace salient::pipeline

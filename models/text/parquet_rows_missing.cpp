// In place of parquet_rows.cpp where CMake found no Arrow.
#include "common/error.h"
#include "models/text/parquet_rows.h"

namespace salient::models {

bool reads_parquet() { return false; }

void read_parquet_rows(std::span<const std::byte>, const std::string& where, const std::function<void(Json row)>&) {
  throw Error(ErrorKind::kUnsupported,
              fmt::format("{}: the file is Parquet, which this build of Salient does not read: Apache Arrow was not there", where))
      .with_code("PARQUET_NOT_BUILT")
      .with_hint(
          "install the Python package pyarrow beside torch, or name its folder with -DSALIENT_PYARROW=..., configure and build "
          "again; or convert the "
          "file: python3 -c \"import pandas; pandas.read_parquet('IN').to_json('OUT.jsonl', orient='records', lines=True, "
          "force_ascii=False)\"");
}

}  // namespace salient::models

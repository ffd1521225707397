// Rows of an Apache Parquet file (https://parquet.apache.org/docs/file-format) as JSON objects, the values as Python shows them to
// a template:
//
//   bool, integers, float16 to float64    themselves; not a number and infinities, too
//   strings and binaries of every kind    a string of their bytes, ill-formed UTF-8 as it is
//   dictionary, extension                 the value that stands for it
//   list, struct, map                     array, object, array of [key, value]
//   decimal                               a string: "1.20", "1E-7"
//   date, time                            "2024-01-31", "23:59:59.500000"
//   timestamp                             "2024-01-31 23:59:59.500000", with a time zone behind it "+00:00" or its fixed offset;
//                                         in named zones, whose local time is not known here, that of UTC
//   duration                              "1 day, 0:00:01"
//   null                                  null
//
// The work is Apache Arrow's: libarrow and libparquet of the pyarrow wheel. A build without them has this interface, too, and says
// what to do.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include "common/json.h"

namespace salient::models {

// Whether this build can read them.
bool reads_parquet();

// Calls `add` with each row, in file order; some 16 MiB of rows are decoded at a time. `where` names the file in errors. Errors:
// corruption, with Arrow's words; unsupported: encryption, codecs and types that are not known, and every file in a build without
// Arrow.
void read_parquet_rows(std::span<const std::byte> bytes, const std::string& where, const std::function<void(Json row)>& add);

}  // namespace salient::models

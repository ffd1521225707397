// The report as one HTML file that needs nothing else: no network, no fonts, no libraries. Works from file://, on paper and on a
// phone.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "common/json.h"

namespace salient::pipeline {

// A file of pipeline/report that is compiled into the program.
struct ReportFile {
  std::string_view name;  // "page.html"
  std::string_view text;
};
std::span<const ReportFile> report_files();

// `data`: of report_data. Nothing in it can end the script that holds it or become markup: "<" is written as an escape, and the
// page's script sets texts, never markup. The page's content policy forbids every request.
std::string report_page(const Json& data);

}  // namespace salient::pipeline

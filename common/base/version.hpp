#pragma once

namespace moesaic {

extern const char* const kVersion;
extern const char* const
    kGitId;  ///< commit at the time of configuring, or empty outside a checkout
extern const char* const kBuild;  ///< compiler and build type

}  // namespace moesaic

# Warnings are errors, hardening is on in every build that is not a sanitizer build.
add_library(sluice_flags INTERFACE)
target_include_directories(sluice_flags INTERFACE ${CMAKE_SOURCE_DIR}/engine ${CMAKE_SOURCE_DIR})
target_compile_definitions(sluice_flags INTERFACE _GNU_SOURCE SLUICE_VERSION="${PROJECT_VERSION}")
target_compile_options(sluice_flags INTERFACE
  $<$<COMPILE_LANGUAGE:C>:-Wall -Wextra -Werror -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes
    -Wwrite-strings -Wvla -Wformat=2 -Wundef -Wno-unused-parameter -Wno-missing-field-initializers>
  # Everything ends in an executable that may lie anywhere; CMake's -fPIC for libraries would have a thread's own
  # variables found as if it could be another's.
  -fPIE -fno-strict-aliasing -fno-omit-frame-pointer "-ffile-prefix-map=${CMAKE_SOURCE_DIR}=.")

if(SLUICE_SANITIZE)
  add_compile_options(-fsanitize=${SLUICE_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${SLUICE_SANITIZE})
else()
  # -fno-plt: everything is bound at the start (-z now), so a library is called where the table says, by no stub.
  target_compile_options(sluice_flags INTERFACE
    -fstack-protector-strong -fstack-clash-protection -fcf-protection -fno-plt
    # clang 14 has it only behind a flag that says it will go away
    $<$<C_COMPILER_ID:GNU>:-ftrivial-auto-var-init=zero> $<$<CONFIG:Release>:-D_FORTIFY_SOURCE=2>)
  add_link_options(-Wl,-z,relro,-z,now -pie)
  # The program is optimised as a whole (CMakeLists.txt); tests and benches link the same objects as they are.
  if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_BUILD_TYPE STREQUAL "Release")
    target_compile_options(sluice_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-flto=auto -ffat-lto-objects>)
    add_link_options(-fno-lto)
    set(whole_program -flto=auto)
  endif()
endif()
# A program that is built by what it was seen to do (./dev build tuned): one that counts, `train`, leaves its counts in
# build/profile; `tuned` is compiled by them, what was never seen for size.
set(profile ${CMAKE_SOURCE_DIR}/build/profile)
if(SLUICE_PROFILE STREQUAL "record")
  add_compile_options(-fprofile-generate=${profile} -fprofile-update=atomic -fprofile-prefix-path=${CMAKE_BINARY_DIR})
  add_link_options(-fprofile-generate)
elseif(SLUICE_PROFILE STREQUAL "use")
  if(NOT EXISTS ${profile})
    message(FATAL_ERROR "there is no ${profile}: ./dev build tuned makes it, and then this build")
  endif()
  add_compile_options(-fprofile-use=${profile} -fprofile-prefix-path=${CMAKE_BINARY_DIR} -Wno-missing-profile)
elseif(SLUICE_PROFILE)
  message(FATAL_ERROR "SLUICE_PROFILE: \"${SLUICE_PROFILE}\": there are record and use")
endif()
if(SLUICE_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(URING REQUIRED IMPORTED_TARGET liburing)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)
pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET openssl)
pkg_check_modules(JEMALLOC REQUIRED IMPORTED_TARGET jemalloc)
pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
endif()

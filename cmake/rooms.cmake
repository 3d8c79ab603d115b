# room(NAME SOURCES... USES rooms-and-libraries...): one static library per room, sluice_NAME.
# USES names only rooms below: the link order is the proof that arrows point down.
function(room name)
  cmake_parse_arguments(R "" "" "SOURCES;USES" ${ARGN})
  add_library(sluice_${name} STATIC ${R_SOURCES})
  target_link_libraries(sluice_${name} PUBLIC sluice_flags ${R_USES})
endfunction()

# unit_test(NAME SOURCES... USES...): a cmocka program, run by ctest from the source root.
function(unit_test name)
  cmake_parse_arguments(R "" "" "SOURCES;USES" ${ARGN})
  add_executable(${name} ${R_SOURCES})
  target_link_libraries(${name} PRIVATE sluice_flags ${R_USES} PkgConfig::CMOCKA)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/unit)
  add_test(NAME unit/${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(unit/${name} PROPERTIES LABELS unit TIMEOUT 300)
endfunction()

# fuzz_target(NAME SOURCES... USES...): a libFuzzer program; seeds in tests/fuzz/seeds/NAME.
function(fuzz_target name)
  if(NOT SLUICE_FUZZ)
    return()
  endif()
  cmake_parse_arguments(R "" "" "SOURCES;USES" ${ARGN})
  add_executable(fuzz_${name} ${R_SOURCES})
  target_link_libraries(fuzz_${name} PRIVATE sluice_flags ${R_USES})
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
endfunction()

# The load, the provider and the floor that benches are made of (bench/gen/README.md).
set(gen ${CMAKE_CURRENT_LIST_DIR}/gen)
add_library(bench_gen STATIC ${gen}/answer.c ${gen}/common.c ${gen}/h2.c ${gen}/histogram.c ${gen}/judge.c
  ${gen}/requests.c ${gen}/schedule.c ${gen}/server.c ${gen}/tally.c ${gen}/wire.c)
target_link_libraries(bench_gen PUBLIC sluice_json PkgConfig::OPENSSL PkgConfig::NGHTTP2 m)
foreach(program load upstream floor populate)
  add_executable(bench-${program} ${gen}/${program}.c)
  target_link_libraries(bench-${program} PRIVATE bench_gen)
endforeach()
target_link_libraries(bench-floor PRIVATE PkgConfig::CURL)
target_link_libraries(bench-populate PRIVATE sluice_vault)

add_executable(sluice-load ${CMAKE_CURRENT_LIST_DIR}/load.c)
target_link_libraries(sluice-load PRIVATE sluice_flags)

// What this library was built from and for. The loader reads it from the file, before anything is loaded.
extern "C" __attribute__((used, visibility("default"))) const char agileact_stamp[] =
    "AGILEACT-STAMP" AGILEACT_STAMP "AGILEACT-END";

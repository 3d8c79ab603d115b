/*
 * schema_meta.c -- the metaschemas of draft 2020-12, as text
 *
 * One document per vocabulary and one that joins them.  Titles and comments are left out: these answer references and
 * check schemas, nobody reads them.  Every document carries the dynamic anchor "meta", through which the parts reach
 * the whole.
 */
#include "base/check.h"
#include "json/schema_internal.h"

#define BASE "https://json-schema.org/draft/2020-12/"

/* The head of a part; the document's own members follow. */
#define PART(name) \
    "{\"$schema\":\"" BASE "schema\",\"$id\":\"" BASE "meta/" name "\",\"$dynamicAnchor\":\"meta\"," \
    "\"type\":[\"object\",\"boolean\"]"

#define META "{\"$dynamicRef\":\"#meta\"}"
#define META_MAP "{\"type\":\"object\",\"additionalProperties\":" META ",\"default\":{}}"
#define REF(def) "{\"$ref\":\"#/$defs/" def "\"}"

#define DEF_SCHEMA_ARRAY "\"schemaArray\":{\"type\":\"array\",\"minItems\":1,\"items\":" META "}"
#define DEF_STRING_ARRAY "\"stringArray\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"uniqueItems\":true," \
    "\"default\":[]}"
#define DEF_NATURAL "\"nonNegativeInteger\":{\"type\":\"integer\",\"minimum\":0}," \
    "\"nonNegativeIntegerDefault0\":{\"$ref\":\"#/$defs/nonNegativeInteger\",\"default\":0}"

static const char whole[] =
    "{\"$schema\":\"" BASE "schema\",\"$id\":\"" BASE "schema\",\"$vocabulary\":{"
    "\"" BASE "vocab/core\":true,\"" BASE "vocab/applicator\":true,\"" BASE "vocab/unevaluated\":true,"
    "\"" BASE "vocab/validation\":true,\"" BASE "vocab/meta-data\":true,\"" BASE "vocab/format-annotation\":true,"
    "\"" BASE "vocab/content\":true},"
    "\"$dynamicAnchor\":\"meta\",\"allOf\":[{\"$ref\":\"meta/core\"},{\"$ref\":\"meta/applicator\"},"
    "{\"$ref\":\"meta/unevaluated\"},{\"$ref\":\"meta/validation\"},{\"$ref\":\"meta/meta-data\"},"
    "{\"$ref\":\"meta/format-annotation\"},{\"$ref\":\"meta/content\"}],\"type\":[\"object\",\"boolean\"],"
    "\"properties\":{\"definitions\":" META_MAP ",\"dependencies\":{\"type\":\"object\",\"additionalProperties\":"
    "{\"anyOf\":[" META ",{\"$ref\":\"meta/validation#/$defs/stringArray\"}]},\"default\":{}},"
    "\"$recursiveAnchor\":{\"$ref\":\"meta/core#/$defs/anchorString\"},"
    "\"$recursiveRef\":{\"$ref\":\"meta/core#/$defs/uriReferenceString\"}}}";

static const char core[] = PART("core")
    ",\"properties\":{\"$id\":{\"$ref\":\"#/$defs/uriReferenceString\",\"pattern\":\"^[^#]*#?$\"},"
    "\"$schema\":" REF("uriString") ",\"$ref\":" REF("uriReferenceString") ",\"$anchor\":" REF("anchorString") ","
    "\"$dynamicRef\":" REF("uriReferenceString") ",\"$dynamicAnchor\":" REF("anchorString") ","
    "\"$vocabulary\":{\"type\":\"object\",\"propertyNames\":" REF("uriString") ","
    "\"additionalProperties\":{\"type\":\"boolean\"}},\"$comment\":{\"type\":\"string\"},\"$defs\":" META_MAP "},"
    "\"$defs\":{\"anchorString\":{\"type\":\"string\",\"pattern\":\"^[A-Za-z_][-A-Za-z0-9._]*$\"},"
    "\"uriString\":{\"type\":\"string\",\"format\":\"uri\"},"
    "\"uriReferenceString\":{\"type\":\"string\",\"format\":\"uri-reference\"}}}";

static const char applicator[] = PART("applicator")
    ",\"properties\":{\"prefixItems\":" REF("schemaArray") ",\"items\":" META ",\"contains\":" META ","
    "\"additionalProperties\":" META ",\"properties\":" META_MAP ",\"patternProperties\":{\"type\":\"object\","
    "\"additionalProperties\":" META ",\"propertyNames\":{\"format\":\"regex\"},\"default\":{}},"
    "\"dependentSchemas\":" META_MAP ",\"propertyNames\":" META ",\"if\":" META ",\"then\":" META ",\"else\":" META ","
    "\"allOf\":" REF("schemaArray") ",\"anyOf\":" REF("schemaArray") ",\"oneOf\":" REF("schemaArray") ","
    "\"not\":" META "},\"$defs\":{" DEF_SCHEMA_ARRAY "}}";

static const char unevaluated[] = PART("unevaluated")
    ",\"properties\":{\"unevaluatedItems\":" META ",\"unevaluatedProperties\":" META "}}";

static const char validation[] = PART("validation")
    ",\"properties\":{\"type\":{\"anyOf\":[" REF("simpleTypes") ",{\"type\":\"array\",\"items\":" REF("simpleTypes") ","
    "\"minItems\":1,\"uniqueItems\":true}]},\"const\":true,\"enum\":{\"type\":\"array\",\"items\":true},"
    "\"multipleOf\":{\"type\":\"number\",\"exclusiveMinimum\":0},\"maximum\":{\"type\":\"number\"},"
    "\"exclusiveMaximum\":{\"type\":\"number\"},\"minimum\":{\"type\":\"number\"},"
    "\"exclusiveMinimum\":{\"type\":\"number\"},\"maxLength\":" REF("nonNegativeInteger") ","
    "\"minLength\":" REF("nonNegativeIntegerDefault0") ",\"pattern\":{\"type\":\"string\",\"format\":\"regex\"},"
    "\"maxItems\":" REF("nonNegativeInteger") ",\"minItems\":" REF("nonNegativeIntegerDefault0") ","
    "\"uniqueItems\":{\"type\":\"boolean\",\"default\":false},\"maxContains\":" REF("nonNegativeInteger") ","
    "\"minContains\":{\"$ref\":\"#/$defs/nonNegativeInteger\",\"default\":1},"
    "\"maxProperties\":" REF("nonNegativeInteger") ",\"minProperties\":" REF("nonNegativeIntegerDefault0") ","
    "\"required\":" REF("stringArray") ",\"dependentRequired\":{\"type\":\"object\","
    "\"additionalProperties\":" REF("stringArray") "}},\"$defs\":{" DEF_NATURAL ",\"simpleTypes\":{\"enum\":["
    "\"array\",\"boolean\",\"integer\",\"null\",\"number\",\"object\",\"string\"]}," DEF_STRING_ARRAY "}}";

static const char meta_data[] = PART("meta-data")
    ",\"properties\":{\"title\":{\"type\":\"string\"},\"description\":{\"type\":\"string\"},\"default\":true,"
    "\"deprecated\":{\"type\":\"boolean\",\"default\":false},\"readOnly\":{\"type\":\"boolean\",\"default\":false},"
    "\"writeOnly\":{\"type\":\"boolean\",\"default\":false},\"examples\":{\"type\":\"array\",\"items\":true}}}";

static const char format_annotation[] = PART("format-annotation")
    ",\"properties\":{\"format\":{\"type\":\"string\"}}}";

static const char format_assertion[] = PART("format-assertion")
    ",\"properties\":{\"format\":{\"type\":\"string\"}}}";

static const char content[] = PART("content")
    ",\"properties\":{\"contentEncoding\":{\"type\":\"string\"},\"contentMediaType\":{\"type\":\"string\"},"
    "\"contentSchema\":" META "}}";

struct str schema_meta_text(struct str uri)
{
    static const struct {
        const char *name, *text;
    } documents[] = {
        { "schema", whole },
        { "meta/core", core },
        { "meta/applicator", applicator },
        { "meta/unevaluated", unevaluated },
        { "meta/validation", validation },
        { "meta/meta-data", meta_data },
        { "meta/format-annotation", format_annotation },
        { "meta/format-assertion", format_assertion },
        { "meta/content", content },
    };

    if (!str_starts(uri, STR(BASE)))
        return STR_NULL;
    uri = str_from(uri, sizeof(BASE) - 1);
    for (size_t i = 0; i < ARRAY_LEN(documents); i++)
        if (str_is(uri, documents[i].name))
            return str_of(documents[i].text);
    return STR_NULL;
}

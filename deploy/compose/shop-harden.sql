-- The least that the gateway's role on shop needs, made from its rules and masks.
-- Read it, then apply it in the database "shop" as a role that owns the tables. It may be applied again, after a migration or with other rules.
-- Give the role a password: \password shop_agent
BEGIN;
DO $harden$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'shop_agent') THEN
    CREATE ROLE "shop_agent" LOGIN NOINHERIT;
  ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'shop_agent' AND (r.rolsuper
      OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
      OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid)
      OR EXISTS (SELECT FROM pg_catalog.pg_shdepend d WHERE d.deptype = 'o' AND d.refobjid = r.oid
        AND d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass))) THEN
    RAISE EXCEPTION '% is more than a role that was made for this: choose another name', 'shop_agent';
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'shop_agent'
      AND pg_catalog.obj_description(n.oid, 'pg_namespace') IS DISTINCT FROM 'made by portcullis policy harden') THEN
    RAISE EXCEPTION 'the schema % is somebody else''s: choose another name', 'shop_agent';
  END IF;
END
$harden$;
DROP SCHEMA IF EXISTS "shop_agent" CASCADE;
CREATE SCHEMA "shop_agent";
COMMENT ON SCHEMA "shop_agent" IS 'made by portcullis policy harden';
DO $harden$
DECLARE
  found record;
BEGIN
  FOR found IN
    SELECT DISTINCT pg_catalog.format('%s %s', kind, name) AS what FROM (
      SELECT 'SCHEMA', pg_catalog.quote_ident(nspname), nspacl FROM pg_catalog.pg_namespace
      UNION ALL SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
        oid::pg_catalog.regclass::text, relacl FROM pg_catalog.pg_class
      UNION ALL SELECT 'TABLE', attrelid::pg_catalog.regclass::text, attacl FROM pg_catalog.pg_attribute
        WHERE attacl IS NOT NULL
      UNION ALL SELECT 'ROUTINE', oid::pg_catalog.regprocedure::text, proacl FROM pg_catalog.pg_proc
      UNION ALL SELECT 'TYPE', oid::pg_catalog.regtype::text, typacl FROM pg_catalog.pg_type
      UNION ALL SELECT 'LANGUAGE', pg_catalog.quote_ident(lanname), lanacl FROM pg_catalog.pg_language
      UNION ALL SELECT 'FOREIGN SERVER', pg_catalog.quote_ident(srvname), srvacl
        FROM pg_catalog.pg_foreign_server
      UNION ALL SELECT 'FOREIGN DATA WRAPPER', pg_catalog.quote_ident(fdwname), fdwacl
        FROM pg_catalog.pg_foreign_data_wrapper
      UNION ALL SELECT 'LARGE OBJECT', oid::text, lomacl FROM pg_catalog.pg_largeobject_metadata
      UNION ALL SELECT 'DATABASE', pg_catalog.quote_ident(datname), datacl
        FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
    ) AS had(kind, name, acl)
    WHERE acl IS NOT NULL AND EXISTS (
      SELECT FROM pg_catalog.aclexplode(acl) a
      WHERE a.grantee = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = 'shop_agent'))
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %I', found.what, 'shop_agent');
  END LOOP;
  FOR found IN
    SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) AS what,
      d.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AS other_database
    FROM pg_catalog.pg_shdepend d
    WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.deptype = 'a'
      AND d.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = 'shop_agent')
      AND d.dbid IN (0, (SELECT oid FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database()))
  LOOP
    IF found.other_database THEN
      RAISE NOTICE '% keeps its rights on %', 'shop_agent', found.what;
    ELSE
      RAISE EXCEPTION '% has rights on % that this script does not give', 'shop_agent', found.what
        USING HINT = 'Take them away as who gave them (REVOKE), or choose another name.';
    END IF;
  END LOOP;
  FOR found IN
    SELECT pg_catalog.split_part(setting, '=', 1) AS what
    FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS setting
    WHERE s.setrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = 'shop_agent')
      AND setting !~ '^(search_path|statement_timeout)='
  LOOP
    RAISE NOTICE '% keeps its setting %', 'shop_agent', found.what;
  END LOOP;
END
$harden$;
ALTER ROLE "shop_agent" SET statement_timeout = '60s';
ALTER ROLE "shop_agent" IN DATABASE "shop" SET search_path = "shop_agent", "public";
GRANT CONNECT ON DATABASE "shop" TO "shop_agent";
GRANT USAGE ON SCHEMA "shop_agent" TO "shop_agent";
REVOKE ALL ON ALL TABLES IN SCHEMA "public" FROM "shop_agent";
REVOKE ALL ON ALL SEQUENCES IN SCHEMA "public" FROM "shop_agent";
REVOKE ALL ON SCHEMA "public" FROM "shop_agent";
GRANT USAGE ON SCHEMA "public" TO "shop_agent";
GRANT SELECT, USAGE ON SEQUENCE "public"."customers_id_seq" TO "shop_agent";
GRANT SELECT ("id", "name", "phone", "country", "created_at"), INSERT, UPDATE, DELETE ON "public"."customers" TO "shop_agent";
GRANT SELECT, USAGE ON SEQUENCE "public"."orders_id_seq" TO "shop_agent";
GRANT SELECT, INSERT, UPDATE, DELETE ON "public"."orders" TO "shop_agent";
GRANT SELECT ON "public"."open_orders" TO "shop_agent";
CREATE VIEW "shop_agent"."customers" AS SELECT t."id", t."name", (CASE WHEN pg_catalog.int4le(pg_catalog.octet_length(((t."email")::pg_catalog.text COLLATE pg_catalog."C")), 320) AND pg_catalog.textregexeq(((t."email")::pg_catalog.text COLLATE pg_catalog."C"), '^[^@]+@([A-Za-z0-9-]|[^[:cntrl:] -~])*[.]([A-Za-z0-9.-]|[^[:cntrl:] -~])*$') THEN pg_catalog.textcat(CASE WHEN pg_catalog.textregexeq(((t."email")::pg_catalog.text COLLATE pg_catalog."C"), '^[[:cntrl:] -~][^@]') THEN pg_catalog.substr(((t."email")::pg_catalog.text COLLATE pg_catalog."C"), 1, 1) ELSE '' END, pg_catalog.textcat('***', pg_catalog.substr(((t."email")::pg_catalog.text COLLATE pg_catalog."C"), pg_catalog.strpos(((t."email")::pg_catalog.text COLLATE pg_catalog."C"), '@')))) WHEN pg_catalog.textregexeq(((t."email")::pg_catalog.text COLLATE pg_catalog."C"), '^([^A-Za-z0-9]*[A-Za-z0-9]){8}') AND NOT pg_catalog.textregexeq(((t."email")::pg_catalog.text COLLATE pg_catalog."C"), '[^[:cntrl:] -~]') THEN pg_catalog.regexp_replace(((t."email")::pg_catalog.text COLLATE pg_catalog."C"), '[A-Za-z0-9](?=([^A-Za-z0-9]*[A-Za-z0-9]){4})', '*', 'g') ELSE pg_catalog.repeat('*', pg_catalog.char_length(((t."email")::pg_catalog.text COLLATE pg_catalog."C"))) END)::pg_catalog.text AS "email", t."phone", '[masked]'::pg_catalog.text AS "ssn", '[masked]'::pg_catalog.text AS "card_number", t."country", t."created_at" FROM "public"."customers" t;
COMMENT ON COLUMN "shop_agent"."customers"."email" IS 'masked by portcullis: partial';
COMMENT ON COLUMN "shop_agent"."customers"."ssn" IS 'masked by portcullis: redact';
COMMENT ON COLUMN "shop_agent"."customers"."card_number" IS 'masked by portcullis: redact';
GRANT SELECT, INSERT ("id", "name", "phone", "country", "created_at"), UPDATE ("id", "name", "phone", "country", "created_at"), DELETE ON "shop_agent"."customers" TO "shop_agent";
COMMIT;

-- The role owns nothing: what alters or drops tables fails, approved or not. A caller may SET statement_timeout unless a rule blocks sql.set on setting:statement_timeout. Callers of shop_agent share one role.
-- Of tables with masked columns, COPY … FROM, MERGE and TRUNCATE need the schema: COPY "public"."customers" (…) FROM …. Their names alone mean the views, which are for SELECT, INSERT, UPDATE and DELETE.

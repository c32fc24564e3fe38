DO $harden$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = 'portcullis_masks'
      AND pg_catalog.obj_description(n.oid, 'pg_namespace') IS DISTINCT FROM {mark}) THEN
    RAISE EXCEPTION 'the schema portcullis_masks is somebody else''s';
  END IF;
  IF pg_catalog.pg_has_role({said}, current_user, 'MEMBER') THEN
    RAISE EXCEPTION '% may do what the role may that makes these functions, and could read their key',
      {said} USING HINT = 'Apply this as another role.';
  END IF;
END
$harden$;
CREATE SCHEMA IF NOT EXISTS portcullis_masks;
COMMENT ON SCHEMA portcullis_masks IS {mark};
REVOKE ALL ON SCHEMA portcullis_masks FROM PUBLIC;
CREATE TABLE IF NOT EXISTS portcullis_masks.key (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  inner_pad bytea NOT NULL,
  outer_pad bytea NOT NULL
);
REVOKE ALL ON portcullis_masks.key FROM PUBLIC, {role};
DO $harden$
DECLARE
  secret bytea := pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.concat(
    pg_catalog.gen_random_uuid(), pg_catalog.gen_random_uuid(), pg_catalog.gen_random_uuid(),
    pg_catalog.gen_random_uuid()), 'UTF8'));
  inner_pad bytea := pg_catalog.decode(pg_catalog.repeat('36', 64), 'hex');
  outer_pad bytea := pg_catalog.decode(pg_catalog.repeat('5c', 64), 'hex');
BEGIN
  FOR i IN 0..31 LOOP
    inner_pad := pg_catalog.set_byte(inner_pad, i, pg_catalog.get_byte(secret, i) # 54);
    outer_pad := pg_catalog.set_byte(outer_pad, i, pg_catalog.get_byte(secret, i) # 92);
  END LOOP;
  INSERT INTO portcullis_masks.key VALUES (true, inner_pad, outer_pad) ON CONFLICT DO NOTHING;
END
$harden$;
CREATE OR REPLACE FUNCTION portcullis_masks.mask_hash(value text) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $harden$
DECLARE
  key portcullis_masks.key;
BEGIN
  SELECT * INTO STRICT key FROM portcullis_masks.key;
  RETURN '[masked:' || translate(encode(substr(sha256(key.outer_pad || sha256(key.inner_pad
    || convert_to(value, getdatabaseencoding()))), 1, 12), 'hex'), '0123456789abcdef',
    'abcdefghijklmnop') || ']';
END
$harden$;
CREATE OR REPLACE FUNCTION portcullis_masks.mask_tokenize(value text) RETURNS text
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $harden$
DECLARE
  key portcullis_masks.key;
  letters bytea := convert_to(value, getdatabaseencoding());
  tweak bytea := '';
  size int := char_length(value);
  middle int := size / 2;
  first int;
  count int;
  letter int;
  other bytea;
  stream bytea;
  byte int;
BEGIN
  IF size > 1000 THEN
    RETURN portcullis_masks.mask_hash(value);
  END IF;
  SELECT * INTO STRICT key FROM portcullis_masks.key;
  IF octet_length(letters) > size OR value ~ '[^\x01-\x7f]' THEN
    tweak := letters;
    letters := '';
    FOR i IN 1..size LOOP
      letter := ascii(substr(value, i, 1));
      letters := letters || set_byte('\x00', 0,
        CASE WHEN letter > 127 THEN 97 + letter % 26 ELSE letter END);
    END LOOP;
  END IF;
  FOR round IN 0..7 LOOP
    IF round % 2 = 0 THEN
      other := substr(letters, 1, middle);
      first := middle;
      count := size - middle;
    ELSE
      other := substr(letters, middle + 1);
      first := 0;
      count := middle;
    END IF;
    FOR i IN 0..count - 1 LOOP
      byte := i % 16 * 2;
      IF byte = 0 THEN
        stream := sha256(key.outer_pad || sha256(key.inner_pad
          || set_byte(set_byte('\x0000', 0, round), 1, i / 16) || other || tweak));
      END IF;
      letter := get_byte(letters, first + i);
      IF letter BETWEEN 97 AND 122 THEN
        letters := set_byte(letters, first + i, 97
          + (letter - 97 + get_byte(stream, byte) * 256 + get_byte(stream, byte + 1)) % 26);
      ELSIF letter BETWEEN 48 AND 57 THEN
        letters := set_byte(letters, first + i, 48
          + (letter - 48 + get_byte(stream, byte) * 256 + get_byte(stream, byte + 1)) % 10);
      ELSIF letter BETWEEN 65 AND 90 THEN
        letters := set_byte(letters, first + i, 65
          + (letter - 65 + get_byte(stream, byte) * 256 + get_byte(stream, byte + 1)) % 26);
      END IF;
    END LOOP;
  END LOOP;
  RETURN convert_from(letters, getdatabaseencoding());
END
$harden$;
CREATE OR REPLACE FUNCTION portcullis_masks.mask_tokenize(value bigint, most bigint) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $harden$
DECLARE
  key portcullis_masks.key;
  size bigint := abs(greatest(value, -most));
  digits int := char_length(size::text);
  lowest bigint := ('1' || repeat('0', digits - 1))::bigint;
  many numeric := least(('1' || repeat('0', digits))::numeric, most::numeric + 1) - lowest;
  bits int := 1;
  mask bigint;
  high bigint;
  low bigint;
BEGIN
  IF value = 0 THEN
    RETURN 0;
  END IF;
  SELECT * INTO STRICT key FROM portcullis_masks.key;
  WHILE 2::numeric ^ (2 * bits) < many LOOP
    bits := bits + 1;
  END LOOP;
  mask := (1::bigint << bits) - 1;
  size := size - lowest;
  LOOP
    high := (size >> bits) & mask;
    low := size & mask;
    FOR round IN 0..7 LOOP
      IF round % 2 = 0 THEN
        low := low # (mask & ('x' || substr(encode(sha256(key.outer_pad || sha256(key.inner_pad
          || set_byte(set_byte('\x0000', 0, 128 + round), 1, digits) || int8send(high))), 'hex'), 1,
          16))::bit(64)::bigint);
      ELSE
        high := high # (mask & ('x' || substr(encode(sha256(key.outer_pad || sha256(key.inner_pad
          || set_byte(set_byte('\x0000', 0, 128 + round), 1, digits) || int8send(low))), 'hex'), 1,
          16))::bit(64)::bigint);
      END IF;
    END LOOP;
    size := (high << bits) | low;
    EXIT WHEN size >= 0 AND size < many;
  END LOOP;
  RETURN CASE WHEN value < 0 THEN -(size + lowest) ELSE size + lowest END;
END
$harden$;
CREATE OR REPLACE FUNCTION portcullis_masks.mask_tokenize(value uuid) RETURNS uuid
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on
AS $harden$
DECLARE
  key portcullis_masks.key;
  high bigint := ('x' || substr(encode(uuid_send(value), 'hex'), 1, 16))::bit(64)::bigint;
  low bigint := ('x' || substr(encode(uuid_send(value), 'hex'), 17, 16))::bit(64)::bigint;
BEGIN
  SELECT * INTO STRICT key FROM portcullis_masks.key;
  FOR round IN 0..7 LOOP
    IF round % 2 = 0 THEN
      low := low # ('x' || substr(encode(sha256(key.outer_pad || sha256(key.inner_pad
        || set_byte('\x00', 0, 192 + round) || int8send(high))), 'hex'), 1, 16))::bit(64)::bigint;
    ELSE
      high := high # ('x' || substr(encode(sha256(key.outer_pad || sha256(key.inner_pad
        || set_byte('\x00', 0, 192 + round) || int8send(low))), 'hex'), 1, 16))::bit(64)::bigint;
    END IF;
  END LOOP;
  RETURN encode(int8send(high) || int8send(low), 'hex')::uuid;
END
$harden$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA portcullis_masks FROM PUBLIC;
GRANT USAGE ON SCHEMA portcullis_masks TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA portcullis_masks TO {role};

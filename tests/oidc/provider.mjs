// An OpenID provider on loopback: provider.mjs PORT KEYS. KEYS is a file with a private JWK set; the
// first key signs. Its people log in with any password and are in the group "people"; the client
// `crew` is in "crews".
import { readFileSync } from 'node:fs';
import Provider from 'oidc-provider';

const [port, keys] = process.argv.slice(2);
const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code';

const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: JSON.parse(readFileSync(keys, 'utf8')),
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  cookies: { keys: ['of this test'] },
  clients: [
    {
      client_id: 'crew',
      client_secret: 'crew-secret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
    {
      client_id: 'portcullis',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', DEVICE],
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
    },
  ],
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => 'urn:portcullis',
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        audience: 'portcullis',
        scope: 'sessions',
        accessTokenTTL: 600,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
  extraTokenClaims: (_, token) => ({ groups: [token.accountId ? 'people' : 'crews'] }),
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
});

provider.listen(Number(port), '127.0.0.1', () => console.log('listening'));

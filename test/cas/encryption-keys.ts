/** Node keys and identities for tests, made once a process. */
import { drawIdentity } from "../../src/cas/keys/age.ts";
import type { RepositoryEncryption } from "../../src/cas/keys/repository-encryption.ts";
import { drawNodeKeys } from "../../src/cas/format/node-keys.ts";
import { realRandom } from "../../src/base/random.ts";

/** Somebody who can restore. */
export const READER = await drawIdentity();

/** Somebody else. */
export const STRANGER = await drawIdentity();

/** What a node has. */
export const ENCRYPTION: RepositoryEncryption = {
  keys: drawNodeKeys(realRandom),
  recipients: [READER.recipient],
};
